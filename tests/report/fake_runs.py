"""Writes small plausible run directories: a static, a new and an eva arm, and hostile ones."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import yaml

from eva.records import (
    Checkpoint,
    Child,
    Message,
    Prompt,
    Record,
    Response,
    Rollout,
    ScoredPrompt,
)

WORDS = (
    "len 5", "has 3", "no 7", "first 2", "last 6", "up", "down", "twice 4", "distinct", "pal",
    "even", "odd", "min 2", "max 8", "sum>=20", "ends", "absent 3", "peak", "step 2", "more 4",
)  # fmt: skip
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> <a href='javascript:alert(1)'>x</a> javascript:alert(1)",
    "line\u2028separator\u2029paragraph",
    "right \u202eto left\u202c and \u200bzero width",
    "emoji 👩‍👩‍👧‍👦 🎉 日本語 العربية",
    "{{7*7}} {% raw %} ${7*7} #{7*7}",
    "<!-- comment --!> --> <![CDATA[x]]> &lt;b&gt; &amp;",
    "nul \x00 bell \x07 escape \x1b[31m red",
    "\"'`=<>/ onclick=alert(1)",
    "</style><style>*{display:none}</style>@import url(http://evil.example/x.css)",
)


def write(path: Path, records: Sequence[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record.model_dump_json().encode() + b"\n" for record in records))


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def recipe(arm: str, rounds: int, prompts: int, seed: int = 1) -> dict[str, object]:
    """The recipe of an arm, every default written out."""
    creator = {
        "start": 1,
        "estimate": "last",
        "info": "a_min",
        "select": {"kind": "proportional", "keep": 0.25, "floor": 0.0},
        "evolve": {"kind": "playground", "children": 4, "chained": False, "in_depth": 0.75},
        "fresh": 0.8,
        "replay": "parents",
    }
    new = {"kind": "playground", "set": "new", "n": prompts * rounds, "seed": None}
    return {
        "name": arm,
        "seed": seed,
        "rounds": rounds,
        "n": 8,
        "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 11},
        "policy": {"kind": "hf", "model": "playground", "device": "auto", "dtype": "auto"},
        "prompts": {"kind": "playground", "set": "x0", "n": prompts, "seed": None},
        "new_prompts": new if arm == "new" else None,
        "reward": {"kind": "playground", "form": "graded", "sigma": 0.15, "noise_seed": 0},
        "creator": creator if arm == "eva" else None,
        "learner": {"kind": "dpo", "beta": 0.3, "lr": 5e-4, "steps": 24, "batch": 32},
        "evaluate": {
            "sets": {
                "hard": {"kind": "playground", "set": "eval_hard", "n": 400},
                "x0": {"kind": "playground", "set": "eval_x0", "n": 400},
            },
            "samples": 3,
            "temperature": 1.0,
            "every": 1,
            "solved_at": 1.0,
        },
    }


def prompt(text: str | Sequence[Message], **fields: object) -> Prompt:
    turns = (Message(role="user", content=text),) if isinstance(text, str) else tuple(text)
    return Prompt(messages=turns, **fields)


class Writer:
    """Plays one arm with a made-up policy and writes what a run writes."""

    def __init__(
        self, path: Path, arm: str, rounds: int, prompts: int, seed: int, keep: float
    ) -> None:
        self.keep = keep
        self.path, self.arm, self.rounds, self.size = path, arm, rounds, prompts
        self.recipe = recipe(arm, rounds, prompts, seed)
        self.rng = random.Random(f"{seed}")
        self.skill = 0.0

    def draw(self, count: int) -> list[Prompt]:
        sizes = [self.rng.choices((1, 2, 3), (45, 40, 15))[0] for _ in range(count)]
        texts = [" ".join(self.rng.sample(WORDS, size)) for size in sizes]
        return [prompt(text, by="playground") for text in texts]

    def answer(self, prompts: Sequence[Prompt], t: int) -> list[Rollout]:
        return [self.rollout(asked, t) for asked in prompts]

    def rollout(self, asked: Prompt, t: int) -> Rollout:
        words = asked.messages[-1].content.split()
        size = max(1, sum(not word.isdigit() for word in words[:30]))
        rewards: list[float | None] = []
        for _ in range(8):
            held = sum(
                self.rng.random() < 0.55 + self.skill / (1 + 0.1 * size) for _ in range(size)
            )
            rewards.append(0.5 * held / size + 0.5 * (held == size))
        if self.rng.random() < 0.02:
            rewards[self.rng.randrange(8)] = None
        responses = []
        for _ in range(8):
            tokens = tuple(self.rng.randrange(5, 15) for _ in range(self.rng.randrange(1, 9)))
            logprobs = tuple(round(-self.rng.random(), 5) for _ in tokens)
            text = " ".join(str(token - 5) for token in tokens)
            responses.append(Response(text=text, tokens=tokens, logprobs=logprobs))
        return Rollout(
            prompt=asked,
            responses=tuple(responses),
            rewards=tuple(rewards),
            policy=f"c{t}",
            round=t,
        )

    def children(self, parents: Sequence[ScoredPrompt]) -> list[Child]:
        return [self.child(parent.prompt) for parent in parents for _ in range(4)]

    def child(self, parent: Prompt) -> Child:
        words = _constraints(parent.messages[-1].content)
        word = self.rng.choice(WORDS)
        fields = {"parent": parent.id, "by": "playground-rules"}
        if self.rng.random() < 0.75:
            method, change = "in-depth", f"+ {word}"
            words.insert(self.rng.randrange(len(words) + 1), word)
        else:
            place = self.rng.randrange(len(words))
            method, change = "in-breadth", f"{words[place]} -> {word}"
            words[place] = word
        flaw = None
        if len(set(words)) < len(words):
            flaw = f"the constraint {word!r} is there twice"
        elif len(words) > 9:
            flaw = f"{len(words)} constraints; at most 9 fit"
        elif self.rng.random() < 0.04:
            flaw = "held out: it is in an evaluation set"
        turns = (*parent.messages[:-1], Message(role="user", content=" ".join(words)))
        return Child(messages=turns, method=method, change=change, flaw=flaw, **fields)

    def play(self, given: Sequence[Prompt] = ()) -> None:
        (self.path).mkdir(parents=True)
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(self.recipe, sort_keys=False))
        versions = {"numpy": "2.4.6", "torch": "2.11.0", "transformers": "5.16.0"}
        facts = {"eva": "0.1.0", "python": "3.11.7", "versions": versions, "commit": "1aa73d1"}
        write_json(self.path / "run.json", {**facts, "digest": "9f", "host": "box", "format": 1})
        self.evaluate(0)
        pool, last = [*given, *self.draw(self.size - len(given))], []
        for t in range(self.rounds):
            pool, last = self.round(t, pool, last)
            self.evaluate(t + 1)
        self.close(self.rounds, pool)

    def round(
        self, t: int, pool: list[Prompt], last: list[Rollout]
    ) -> tuple[list[Prompt], list[Rollout]]:
        room = self.path / f"rounds/{t:03d}"
        self.close(t, pool)
        if self.arm == "eva" and t:
            lessons, pool = self.evolve(room, t, pool, last)
            if t == 1:
                lessons = lessons[:-1]
        else:
            batch = self.draw(self.size) if self.arm == "new" and t else pool
            write(room / "batch.jsonl", batch)
            lessons = self.answer(batch, t)
            write(room / "solved/000000.jsonl", lessons[: self.size // 2])
            write(room / "solved/000001.jsonl", lessons[self.size // 2 :])
        write(room / "lessons.jsonl", lessons)
        self.learn(room, t)
        write(room / "checkpoint.jsonl", [Checkpoint(uri="run:x", id=f"c{t + 1}")])
        self.measure(room, t, lessons)
        return pool, lessons

    def evolve(
        self, room: Path, t: int, pool: list[Prompt], last: list[Rollout]
    ) -> tuple[list[Rollout], list[Prompt]]:
        scored = [
            ScoredPrompt(prompt=r.prompt, info=_spread(r), round=t - 1, policy=f"c{t - 1}")
            for r in last
        ]
        write(room / "scored.jsonl", scored)
        parents = self.rng.sample(scored, max(1, round(self.keep * self.size)))
        write(room / "parents.jsonl", parents)
        children = self.children(parents)
        write(room / "children/000000.jsonl", children[:60])
        write(room / "children/000001.jsonl", children[60:])
        fresh = {child.id: child for child in children if child.flaw is None}
        born = [child.grown(t) for child in fresh.values()][: round(0.8 * self.size)]
        write(room / "born.jsonl", born)
        solved = self.answer(born, t)
        write(room / "solved/000000.jsonl", solved)
        replayed = [r for r in last if r.prompt.id in {p.prompt.id for p in parents}]
        return solved + replayed[: self.size // 5], born + [p.prompt for p in parents]

    def learn(self, room: Path, t: int) -> None:
        self.skill += {"static": 0.004, "new": 0.012, "eva": 0.03}[self.arm]
        lines = []
        for step in range(24):
            shake = self.rng.gauss(0, 0.02)
            done = step / 24
            loss, accuracy = 0.69 - 0.18 * done + shake, 0.5 + 0.3 * done + shake
            line = {"step": step, "loss": loss, "accuracy": accuracy, "margin": done + shake}
            lines.append({**line, "grad_norm": 1.5 + 5 * abs(shake), "lr": 5e-4 * (1 - done)})
        path = room / "learn/log.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def measure(self, room: Path, t: int, lessons: Sequence[Rollout]) -> None:
        known = [[r for r in lesson.rewards if r is not None] for lesson in lessons]
        rewards = [reward for group in known for reward in group]
        metrics = {
            "round": t,
            "reward": sum(rewards) / len(rewards),
            "spread": sum(max(g) - min(g) for g in known) / len(known),
            "usable": sum(max(g) > min(g) for g in known) / len(known),
            "missing": 8 * len(known) - len(rewards),
            "prompts": len(lessons),
            "tokens": sum(len(y.tokens or ()) for lesson in lessons for y in lesson.responses),
        }
        write_json(room / "metrics.json", metrics)

    def evaluate(self, t: int) -> None:
        gain = {"static": 0.006, "new": 0.010, "eva": 0.016}[self.arm] * t
        shake = random.Random(f"{self.arm}{t}")
        metrics = {}
        for name, base in (("hard", 0.38), ("x0", 0.65)):
            up = gain if name == "hard" else 0.18 * (1 - 0.75**t)
            for mode, plus in (("greedy", 0.05), ("sampled", 0.0)):
                reward = base + plus + up + (shake.gauss(0, 0.006) if t else 0.0)
                metrics[f"{name}/{mode}/reward"] = reward
                metrics[f"{name}/{mode}/accuracy"] = reward * 1.4 - 0.4 + 0.1
            metrics[f"{name}/sampled/win_rate"] = 0.5 + 1.4 * up
        write_json(self.path / f"evals/{t:03d}.json", metrics)

    def close(self, t: int, pool: Sequence[Prompt]) -> None:
        write(self.path / f"rounds/{t:03d}/pool.jsonl", pool)
        checkpoint = {"uri": "run:x", "id": f"c{t}"}
        write_json(self.path / "state.json", {"round": t, "seed": 1, "checkpoint": checkpoint})


def _constraints(text: str) -> list[str]:
    """The words of a prompt, each constraint with its number."""
    words: list[str] = []
    for word in text.split(" "):
        if word.isdigit() and words:
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def _spread(rollout: Rollout) -> float:
    known = [reward for reward in rollout.rewards if reward is not None]
    return max(known) - min(known)


def write_run(
    path: Path,
    arm: str,
    rounds: int = 8,
    prompts: int = 64,
    seed: int = 1,
    given: Sequence[Prompt] = (),
    keep: float = 0.25,
) -> Path:
    """Write one run directory and return its path."""
    Writer(path, arm, rounds, prompts, seed, keep).play(given)
    return path


def hostile_prompts(text: str) -> list[Prompt]:
    """Prompts with a text that tries to break out of the page, single and as a chat of turns."""
    chat = [
        Message(role="system", content=text),
        Message(role="user", content="hello"),
        Message(role="assistant", content=text),
        Message(role="user", content=f"even {text}"),
    ]
    return [prompt(text), prompt(chat)]
