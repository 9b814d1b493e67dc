"""What the gates cost and catch: 100,000 children, one part planted to be refused, judged at once.

Run `python bench/gates.py`; it prints a table and writes docs/bench-gates.md. Texts are made from a
few openings and word lists, so that nothing in them is anybody's data. The
children pass through `stages.admit` with every gate of a recipe but the judge; each kind of child
is planted by a rule that says which gate should refuse it. What is not planted should pass: it is a
rewrite of its parent by added words, or asks something else.
"""

import argparse
import datetime
import os
import platform
import resource
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eva import seeds
from eva.gates.order import screens
from eva.parts.gates import Gates
from eva.protocols import Around, Screen
from eva.records import Child, Message, Prompt
from eva.stages import admit

PAGE = Path(__file__).parent.parent / "docs" / "bench-gates.md"
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
ENGLISH = """
    house river market doctor letter winter engine garden teacher island kitchen budget window
    picture village captain forest hospital winner mountain paper science music weather history
    culture company customer student lawyer farmer airport ticket bridge station library museum
    coffee bread dinner lesson novel poem story question answer reason method result problem plan
    travel build measure compare change learn begin follow choose carry repair explain protect
    discover write read count save spend borrow promise forget remember improve avoid reach leave
    small large early late quiet strange modern ancient cheap honest careful heavy bright narrow
    common rare simple difficult local foreign public private young old empty full safe dangerous
    always never often together because without between during against through under before after
""".split()  # noqa: SIM905
OPENINGS = (
    "explain how", "write a story about", "list five ways in which", "compare", "what happens when",
    "design a plan for", "summarise why", "describe to a child how", "find the mistake in",
    "give advice about",
)  # fmt: skip
SMALL = "the a of in and to with for on by from at as that is".split()  # noqa: SIM905
REFUSALS = (
    "I'm sorry, but I can't assist with that request. {}",
    "As an AI language model, I cannot rewrite this. {}",
    "Sure, here is the rewritten prompt: {}",
    "#Rewritten Prompt# {}",
    "The given prompt is already complex enough, so I kept it. {}",
)
FOREIGN = (
    "Erkläre bitte in eigenen Worten, warum das so ist, und nenne drei Beispiele aus dem Alltag.",
    "Объясни своими словами, почему это так, и приведи три примера из повседневной жизни.",
    "Explique con tus propias palabras por qué es así y da tres ejemplos de la vida diaria.",
)


class Kind(NamedTuple):
    """Children of one kind."""

    name: str
    """What was planted."""
    gates: tuple[str, ...]
    """The gates that may refuse it; none for what should pass."""
    text: Callable[["World", np.random.Generator, str], str]
    """Makes one, of its parent's text."""
    share: float
    """Of all children."""


class World:
    """Texts to copy from."""

    def __init__(self, pool: int, evaluation: int) -> None:
        rng = seeds.rng(1, "words")
        made = {"".join(rng.choice(SYLLABLES, rng.integers(2, 5))) for _ in range(20_000)}
        self.vocabulary = sorted(made)
        self.pool = [prompt(self.text(seeds.rng(1, "pool", i))) for i in range(pool)]
        self.apart = [prompt(self.text(seeds.rng(1, "apart", i))) for i in range(evaluation)]
        self.written: list[str] = []

    def words(self, rng: np.random.Generator, count: int) -> list[str]:
        """Words as they might stand in a prompt: 45 % small, 40 % English, the rest made up."""
        kinds = rng.choice(3, count, p=(0.45, 0.4, 0.15)).tolist()
        lists = (SMALL, ENGLISH, self.vocabulary)
        return [lists[kind][rng.integers(len(lists[kind]))] for kind in kinds]

    def text(self, rng: np.random.Generator) -> str:
        """A prompt of 8 to 60 words."""
        opening = OPENINGS[rng.integers(len(OPENINGS))]
        return f"{opening} {' '.join(self.words(rng, int(rng.integers(6, 57))))}".capitalize() + "."


def prompt(text: str) -> Prompt:
    """A prompt of one turn."""
    return Prompt(messages=(Message(role="user", content=text),))


def restyled(rng: np.random.Generator, text: str) -> str:
    """The same words in other case, punctuation and space."""
    words = [w.upper() if rng.random() < 0.2 else w for w in text.rstrip(".").split()]
    return "  ".join(words).replace("  ", ", ", 1) + " !"


def one_changed(world: World, rng: np.random.Generator, text: str) -> str:
    """The text with one word replaced."""
    words = text.split()
    words[rng.integers(len(words))] = world.vocabulary[rng.integers(len(world.vocabulary))]
    return " ".join(words)


def of(texts: Sequence[Prompt], rng: np.random.Generator) -> str:
    """One of the texts."""
    return texts[int(rng.integers(len(texts)))].messages[0].content


def deepened(world: World, rng: np.random.Generator, parent: str) -> str:
    """An honest rewrite: the parent with a demand of 12 to 20 words more."""
    return f"{parent} Also {' '.join(world.words(rng, int(rng.integers(12, 21))))}."


def quoting(world: World, rng: np.random.Generator, parent: str) -> str:
    """An honest prompt that quotes a refusal."""
    quoted = REFUSALS[rng.integers(2)].format("").strip()
    return f'Write about {" ".join(world.words(rng, 12))}. Begin with the words "{quoted}"'


def foreign(rng: np.random.Generator) -> str:
    """Words of another language in an order of their own."""
    words = FOREIGN[rng.integers(len(FOREIGN))].split()
    return " ".join(words[i] for i in rng.permutation(len(words)))


def shared(world: World, rng: np.random.Generator) -> str:
    """A text of an earlier child."""
    return world.written[rng.integers(len(world.written))] if world.written else world.text(rng)


KINDS = (
    Kind("honest: the parent and 12 to 20 words more", (), deepened, 0.40),
    Kind("honest: something else", (), lambda w, r, p: w.text(r), 0.28),
    Kind("honest: quotes a refusal", (), quoting, 0.02),
    Kind("refusal", ("refusal",),
         lambda w, r, p: REFUSALS[r.integers(len(REFUSALS))].format(w.text(r)), 0.04),
    Kind("too long for its parent", ("growth",),
         lambda w, r, p: " ".join(w.words(r, 5 * max(len(p.split()), 16))), 0.02),
    Kind("copy of the parent, restyled", ("copy_of_parent",),
         lambda w, r, p: restyled(r, p), 0.03),
    Kind("copy of the parent, one word changed", ("copy_of_parent",),
         lambda w, r, p: one_changed(w, r, p), 0.03),
    Kind("another language", ("language",),
         lambda w, r, p: foreign(r), 0.02),
    Kind("evaluation prompt, restyled", ("contamination",),
         lambda w, r, p: restyled(r, of(w.apart, r)), 0.02),
    Kind("evaluation prompt, one word changed", ("contamination",),
         lambda w, r, p: one_changed(w, r, of(w.apart, r)), 0.02),
    Kind("evaluation prompt in a longer one", ("contamination", "growth"),
         lambda w, r, p: f"{w.text(r)} {of(w.apart, r)} {w.text(r)}", 0.02),
    Kind("pool prompt, restyled", ("duplicates",),
         lambda w, r, p: restyled(r, of(w.pool, r)), 0.025),
    Kind("pool prompt, one word changed", ("duplicates",),
         lambda w, r, p: one_changed(w, r, of(w.pool, r)), 0.025),
    Kind("earlier child, restyled", ("duplicates", "growth"),
         lambda w, r, p: restyled(r, shared(w, r)), 0.025),
    Kind("earlier child, one word changed", ("duplicates", "growth"),
         lambda w, r, p: one_changed(w, r, shared(w, r)), 0.025),
)  # fmt: skip


def children(world: World, count: int) -> tuple[list[Child], list[Kind]]:
    """Children in an order drawn by seed, and the kind of each."""
    shares = np.array([kind.share for kind in KINDS])
    kinds = seeds.rng(1, "kinds").choice(len(KINDS), count, p=shares / shares.sum())
    written, planted = [], []
    for i, k in enumerate(kinds.tolist()):
        rng = seeds.rng(1, "child", i)
        parent = world.pool[i // 4 % len(world.pool)]  # four children of each, as in a round
        text = KINDS[k].text(world, rng, parent.messages[0].content)
        if not KINDS[k].gates:
            world.written.append(text)
        message = Message(role="user", content=text)
        written.append(Child(parent=parent.id, messages=(message,), method="bench", by="bench"))
        planted.append(KINDS[k])
    return written, planted


class Timed:
    """A gate that notes its CPU seconds and how many children it saw."""

    def __init__(self, gate: Screen) -> None:
        self._gate, self.name = gate, gate.name
        self.seconds, self.seen = 0.0, 0

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """The gate's verdicts."""
        start = time.process_time()
        flaws = self._gate(children, around)
        self.seconds += time.process_time() - start
        self.seen += len(children)
        return flaws


def caught(judged: Sequence[Child], planted: Sequence[Kind]) -> list[str]:
    """A row for each kind: planted, refused, by which gates."""
    rows = []
    for kind in KINDS:
        found = [c for c, k in zip(judged, planted, strict=True) if k is kind]
        gates = Counter(c.gate for c in found if c.gate is not None)
        refused = sum(gates.values())
        shown = ", ".join(f"`{gate}` {n:,}" for gate, n in gates.most_common()) or "-"
        meant = ", ".join(f"`{gate}`" for gate in kind.gates) or "none"
        share = refused / max(1, len(found))
        rows.append(f"| {kind.name} | {meant} | {len(found):,} | {share:.2%} | {shown} |")
    return rows


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=100_000)
    parser.add_argument("--pool", type=int, default=25_000)
    parser.add_argument("--evaluation", type=int, default=5_000)
    args = parser.parse_args()
    world = World(args.pool, args.evaluation)
    written, planted = children(world, args.children)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    gates = [Timed(gate) for gate in screens(Gates(), {"bench": world.apart}, None)]
    built = time.process_time() - start
    around = Around({p.id: p for p in world.pool}, world.pool)
    judged = admit(written, around, (), gates)
    total = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = page(args, gates, caught(judged, planted), built, total, peak - before, peak)
    PAGE.write_text(text, "utf-8")
    print(text)


def page(
    args: argparse.Namespace,
    gates: Sequence[Timed],
    kinds: Sequence[str],
    built: float,
    total: float,
    grown: float,
    peak: float,
) -> str:
    """The page, in Markdown."""
    load = os.getloadavg()[1]
    times = [
        f"| `{g.name}` | {g.seen:,} | {g.seconds:.2f} | {1e6 * g.seconds / max(1, g.seen):.0f} |"
        for g in gates
    ]
    command = shlex.join(["python", "bench/gates.py", *sys.argv[1:]])
    return "\n".join(
        [
            "# What the gates cost and catch",
            "",
            f"{args.children:,} children, a pool of {args.pool:,} prompts and {args.evaluation:,}",
            "evaluation prompts, all made from openings and word lists (8 to 60 words),",
            "through `stages.admit` with every gate of the default recipe part but the judge, in",
            "one call and one thread.",
            "",
            f"**{total:.1f} CPU seconds in all**, {built:.2f} of them to read the evaluation set;",
            f"peak memory {peak / 1e3:,.0f} MB, {grown / 1e3:,.0f} MB of it above the children and",
            "prompts themselves.",
            "",
            f"{datetime.date.today()}, Python {platform.python_version()}, {platform.system()},",
            f"{platform.machine()}; load average {load:.1f} on {os.cpu_count()} shared cores.",
            "Command:",
            "",
            f"    {command}",
            "",
            "## Time",
            "",
            "| gate | children | CPU seconds | microseconds each |",
            "|---|---:|---:|---:|",
            *times,
            "",
            "## Recall and false refusals",
            "",
            "What should be refused was planted. Of what should pass, each refusal is false, but",
            "for those that chance makes near-duplicates.",
            "",
            "| planted | meant for | children | refused | by |",
            "|---|---|---:|---:|---|",
            *kinds,
            "",
        ]
    )


if __name__ == "__main__":
    main()
