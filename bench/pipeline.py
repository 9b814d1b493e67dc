"""A simulation of a round's stages, checked against runs: where is the bottleneck, what overlaps?

Run `python bench/pipeline.py`; it writes docs/bench-pipeline.md in about two minutes on one core. A
run of each small world at one size gives the seconds of each stage; with them the simulation
predicts runs of other sizes and chunks, which are then run. The same simulation, with rates from
public peaks (eva.costs), plays a round of 10^6 prompts on a 70B model for docs/scale.md.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from _simulation import Round, Task, played, shares, tasks_of
from eva.costs.cards import card
from eva.costs.hours import decode, forward
from eva.costs.shapes import KNOWN
from eva.records import Message, Prompt, Response, Rollout

PAGE = Path(__file__).parent.parent / "docs" / "bench-pipeline.md"
LINE = re.compile(r"^(\S+ \S+),(\d+) (?:eva\.store INFO made .*/(?:rounds/(\d+)|(evals))/(.*)|.*)")

# ---------------------------------------------------------------- small runs


def run(recipe: str, folder: Path, *overrides: str) -> list[tuple[int, str, float]]:
    """Play a recipe; round, stage and seconds of every file that it made, from its log."""
    sets = [word for override in overrides for word in ("--set", override)]
    subprocess.run(
        [sys.executable, "-m", "eva", "run", recipe, str(folder), *sets],
        check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows, last, begun = [], None, datetime.min
    for text in (folder / "logs/attempt_1.log").read_text("utf-8").splitlines():
        found = LINE.match(text)
        if not found or not found[1][:4].isdigit():
            continue
        now = datetime.strptime(f"{found[1]}.{found[2]}", "%Y-%m-%d %H:%M:%S.%f")
        if found[5]:
            stage = "evaluate" if found[4] else found[5].partition("/")[0].removesuffix(".jsonl")
            rows.append((int(found[3] or -1), stage, (now - (last or begun)).total_seconds()))
        if found[5] or "facts" in text:
            last = now
    return rows


@dataclass(frozen=True)
class Measured:
    """A run that was played."""

    prompts: int
    """Of its pool."""
    seconds: Mapping[str, float]
    """Of each stage in a round, the median over rounds."""


NAMES = {
    "tried": "answer", "solved": "answer", "scored": "select", "parents": "select",
    "written": "evolve", "children": "gate", "born": "gate", "batch": "gate",
    "lessons": "lessons", "checkpoint": "learn",
}  # fmt: skip
"""The stages of a run directory as the simulation has them; a reward is part of the answer here."""


def by_round(rows: Sequence[tuple[int, str, float]]) -> list[dict[str, float]]:
    """Seconds of each stage in each round in which prompts evolve."""
    found: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for t, stage, seconds in rows:
        if t >= 1 and stage in NAMES:
            found[t][NAMES[stage]] += seconds
    return [dict(found[t]) for t in sorted(found)]


@dataclass(frozen=True)
class Line:
    """Seconds of a stage: ``fixed + each * prompts``."""

    fixed: float
    each: float


ASKED = {"answer": 1.8}
"""Prompts that a stage sees, as a share of the pool: the pool itself and 80 % of the batch."""


def fitted(small: Measured, large: Measured) -> dict[str, Line]:
    """The line of each stage through two sizes; neither number may be below 0."""
    lines = {}
    for stage, first in small.seconds.items():
        each = max(0.0, (large.seconds[stage] - first) / (large.prompts - small.prompts))
        fixed = max(0.0, first - each * small.prompts)
        lines[stage] = Line(fixed, each / ASKED.get(stage, 1.0))
    return lines


@dataclass(frozen=True)
class World:
    """One of the small worlds, and the sizes that are predicted."""

    recipe: str
    """Its recipe."""
    known: tuple[tuple[int, int], tuple[int, int]]
    """Prompts and chunk of the two runs that are measured."""
    others: tuple[tuple[int, int], ...]
    """Those that are predicted from them."""
    overrides: tuple[str, ...] = ()
    """What else is set."""

    def words(self, prompts: int, chunk: int) -> tuple[str, ...]:
        """The overrides of a run of some size."""
        sizes = (f"prompts.n={prompts}", f"chunk={chunk}", "rounds=4", "evaluate=null")
        return (*sizes, *self.overrides)


WORLDS = (
    World(
        "playground-eva", ((256, 64), (1024, 256)), ((512, 128), (1024, 64), (2048, 256)),
        ("creator.estimate=fresh", "learner.steps=null", "learner.epochs=2"),
    ),
    World("toy", ((1000, 250), (4000, 500)), ((2000, 500), (8000, 1000))),
)  # fmt: skip


def measured(world: World, prompts: int, chunk: int, folder: Path) -> Measured:
    """Play a world at some size."""
    rounds = by_round(run(world.recipe, folder, *world.words(prompts, chunk)))
    stages = {stage: statistics.median(one[stage] for one in rounds) for stage in rounds[0]}
    return Measured(prompts, stages)


def compared(world: World, folder: Path) -> list[str]:
    """Lines of a table: predicted against measured seconds of a round."""
    first, second = (
        measured(world, *size, folder / f"known-{number}")
        for number, size in enumerate(world.known)
    )
    lines = fitted(first, second)
    each = {stage: line.each for stage, line in lines.items()}
    each["fixed"] = sum(line.fixed for line in lines.values())
    table = []
    for number, (prompts, chunk) in enumerate(world.others):
        found = measured(world, prompts, chunk, folder / f"other-{number}").seconds
        real = sum(found.values())
        tasks = tasks_of(Round(prompts, chunk, each), overlapping=False)
        told = max(played(tasks, dict.fromkeys(SERVERS, 1)))
        slowest = max(found, key=lambda stage: found[stage])
        table.append(
            f"| {world.recipe} | {prompts} | {chunk} | {told:.2f} | {real:.2f} | "
            f"{told / real:.2f} | {slowest} {found[slowest] / real:.0%} |"
        )
    return table


# ---------------------------------------------------------------- the large run


SERVERS = ("eva", "policy", "reward", "writer", "learner")
PROMPTS, G, READ, WROTE, LONGEST = 1_000_000, 6, 256, 800, 2048
POLICY = KNOWN["meta-llama/Llama-3.3-70B-Instruct"]
REWARD = KNOWN["Skywork/Skywork-Reward-V2-Llama-3.1-8B"]
H100 = card("H100")
NODE = 8
"""GPUs of a node, and of a policy server."""
FINE = 1024
"""Prompts that one server takes at a time where stages overlap."""


@dataclass(frozen=True)
class Fleet:
    """How many of what."""

    nodes: int
    """Of eight GPUs; the policy's servers and later the learner have all that is left of them."""
    rewards: int
    """GPUs that score, one server each."""
    chunk: int
    """Prompts in a chunk of the recipe."""

    @property
    def servers(self) -> dict[str, int]:
        """How many of each kind."""
        policy = (NODE * self.nodes - self.rewards) // NODE
        return {"eva": 1, "policy": policy, "reward": self.rewards, "writer": policy, "learner": 1}


def most_rows() -> int:
    """Responses that a server of the policy holds side by side."""
    left = NODE * H100.usable * 0.9 - 2 * POLICY.parameters
    return int(left / ((READ + WROTE / 2) * POLICY.cache(2.0)))


def known(value: float | None) -> float:
    """A speed of a card whose numbers are known."""
    assert value is not None
    return value


def seconds(fleet: Fleet, rows: float, records: float) -> dict[str, float]:
    """Seconds of one server of each kind for a prompt, with `rows` responses on each of them."""
    writing = decode(POLICY, H100, NODE, rows=rows, context=READ + WROTE / 2)
    reading = known(forward(POLICY, H100, NODE))
    learning = known(forward(POLICY, H100, NODE * fleet.servers["policy"]))
    pair = 2 * (READ + WROTE)
    return {
        "answer": G * WROTE / writing + READ / reading,
        "reward": G * (READ + WROTE) / known(forward(REWARD, H100, 1)),
        "evolve": 333 / writing + (300 + READ) / reading,
        "select": records,
        "gate": 1 / 67_000,  # near-duplicates by MinHash, on one core
        "lessons": 2 * records,
        "learn": (pair * 8 / 2 + pair) / learning,  # 8 with checkpointing, and the reference
    }


def today(fleet: Fleet, records: float) -> list[Task]:
    """A round as eva plays it: all servers work on one chunk, and the last response ends it.

    The few rows of a small chunk are slow, and while its longest responses are written a server
    has little else to do.
    """
    count = fleet.servers
    rows = min(most_rows(), fleet.chunk * G / count["policy"])
    each = seconds(fleet, rows, records)
    tail = (LONGEST - WROTE) / decode(POLICY, H100, NODE, rows=1, context=LONGEST)
    return [
        Task(
            task.stage, task.server,
            task.seconds / count[task.server] + (tail if task.stage == "answer" else 0.0),
            task.after,
        )
        for task in tasks_of(Round(PROMPTS, fleet.chunk, each), overlapping=False)
    ]  # fmt: skip


def fleets(records: float) -> list[str]:
    """Lines of a table: a round today, and if stages overlapped."""
    lines = []
    for fleet in FLEETS:
        now = max(played(today(fleet, records), dict.fromkeys(SERVERS, 1)))
        each = seconds(fleet, most_rows(), records)
        tasks = tasks_of(Round(PROMPTS, FINE, each), overlapping=True)
        then = max(played(tasks, fleet.servers))
        busy = shares(tasks, fleet.servers)
        most = max(busy, key=lambda name: busy[name])
        lines.append(
            f"| {fleet.nodes} | {fleet.servers['policy']} | {fleet.rewards} | {fleet.chunk} | "
            f"{now / 3600:.1f} | {then / 3600:.1f} | {1 - then / now:.0%} | "
            f"{most} {busy[most] / 3600:.1f} | {now / 3600 * NODE * fleet.nodes:,.0f} |"
        )
    return lines


FLEETS = (
    Fleet(32, 1, 1024),
    Fleet(32, 8, 1024),
    Fleet(32, 40, 1024),
    Fleet(32, 40, 8192),
    Fleet(32, 40, 65536),
    Fleet(64, 80, 65536),
)


def record_seconds(*, has_ids: bool) -> float:
    """Seconds of one core to write or read a rollout of the large run as JSON, measured."""
    ids = tuple(range(100_000, 100_000 + WROTE)) if has_ids else None
    logprobs = tuple(-i / 1e5 for i in range(WROTE)) if has_ids else None
    answer = Response(text="word " * WROTE, tokens=ids, logprobs=logprobs)
    one = Rollout(
        prompt=Prompt(messages=(Message(role="user", content="word " * READ),)),
        responses=(answer,) * G, rewards=(0.5,) * G, policy="p", round=0,
    )  # fmt: skip
    start = time.process_time()
    for _ in range(500):
        Rollout.model_validate_json(one.model_dump_json())
    return (time.process_time() - start) / 1000


def main() -> None:
    """Measure, predict, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        rows = [line for world in WORLDS for line in compared(world, Path(folder) / world.recipe)]
    records = [record_seconds(has_ids=has_ids) for has_ids in (False, True)]
    out.write_text(_page(rows, fleets(records[0]), records), "utf-8")
    print(out.read_text("utf-8"))


PAGE_TEXT = """# The pipeline of a round, simulated

Written by `python bench/pipeline.py` (Python {python}, {machine}, one thread; other work ran beside
it).

## Against runs

A discrete-event simulation of a round's stages. Two runs of each small world give a line for each
stage, a fixed time and a time for each prompt; the simulation then predicts runs of other sizes and
chunks, which are played. A round evolves prompts; the playground learns for two epochs. Medians
over the rounds, seconds of a round, taken from the run's own log.

| recipe | prompts | chunk | predicted, s | measured, s | ratio | longest stage |
|---|---|---|---|---|---|---|
{rows}

These worlds have one process, so what they check is the sum of the stages and how it grows; nothing
in them overlaps. The seconds are wall-clock time beside other work: when all was run again, ratios
moved by up to a fifth.

## 10^6 prompts, 70B: not run

A round of {prompts:,} prompts, {G} responses of {wrote} tokens (at most {longest}), a policy of
70B on servers of eight H100, a reward model of 8B on one GPU each, with the rates of `eva check`
(50 % of bandwidth, 40 % of the peak) and a network that keeps up. Today stages follow each other,
and a chunk ends with its longest response. Overlapping, a chunk is scored while others are
answered and servers never wait for a chunk; select, near-duplicates and learn stay barriers. GPU-h
are those of today. See [scale](scale.md).

| nodes | servers | reward GPUs | chunk | today, h | overlap, h | saved | longest, h | GPU-h |
|---|---|---|---|---|---|---|---|---|
{large}

One core writes or reads {plain:,.0f} rollouts of this size a second as JSON, {ids:,.0f} with token
ids and log-probabilities: of {prompts:,} prompts, tried, solved and laid into the lessons, and read
again, {hours:.2f} and {hours_ids:.2f} hours of eva's own process.
"""


def _page(rows: Sequence[str], large_rows: Sequence[str], records: Sequence[float]) -> str:
    hours = [6 * one * PROMPTS / 3600 for one in records]
    return PAGE_TEXT.format(
        python=platform.python_version(), machine=platform.machine(), rows="\n".join(rows),
        large="\n".join(large_rows), prompts=PROMPTS, G=G, wrote=WROTE, longest=LONGEST,
        plain=1 / records[0], ids=1 / records[1], hours=hours[0], hours_ids=hours[1],
    )  # fmt: skip


if __name__ == "__main__":
    main()
