"""Rounds of learners that sample for themselves, on a tiny model."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from eva.learn.online import make_learner
from eva.parts.learners import LearnerPart, OwnOnline
from eva.parts.policies import HfPolicy
from eva.protocols import Trainee
from eva.records import Checkpoint, Message, Prompt, Response, Rollout, Sampling

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=5)
STEPS = 3
ROUNDS = 2
PROMPTS = tuple(
    Prompt(messages=(Message(role="user", content=text),))
    for text in ("w1 w2 w3", "w4", "w5 w6", "w7 w8 w9 w10")
)
Open = Callable[..., AbstractContextManager[Trainee]]


def make_part(**choices: object) -> OwnOnline:
    small = {"lr": 1e-3, "steps": STEPS, "batch": 4, "warmup": 0, "betas": (0.9, 0.99)}
    part: Any = TypeAdapter(LearnerPart).validate_python(small | choices)
    return part


@dataclass(frozen=True)
class Opener:
    """Opens a round of a learner in a folder of its own."""

    start: Checkpoint
    home: Path

    def __call__(
        self, part: OwnOnline, out: str = "out", seed: int = 5, t: int = 0, at: Any = None
    ) -> AbstractContextManager[Trainee]:
        folder = self.home / out
        folder.mkdir(exist_ok=True)
        policy = HfPolicy(model=self.start.uri, device="cpu", threads=1)
        learner = make_learner(part, policy, SAMPLING, ROUNDS)
        return learner(at or self.start, reference=self.start, out=folder, seed=seed, round=t)


def reward(response: Response) -> float:
    """Graded, and far from constant for random models."""
    return (sum(response.tokens or ()) % 7) / 7


def answered(trainee: Trainee, seed: int, n: int = 4) -> list[Rollout]:
    groups = trainee.policy(PROMPTS, n, sampling=SAMPLING, seed=seed)
    return [rolled(x, ys, [reward(y) for y in ys]) for x, ys in zip(PROMPTS, groups, strict=True)]


def rolled(
    prompt: Prompt, responses: Sequence[Response], rewards: Sequence[float | None]
) -> Rollout:
    return Rollout(
        prompt=prompt, responses=tuple(responses), rewards=tuple(rewards), policy="p", round=0
    )


def played(trainee: Trainee, first: int = 0) -> list[list[Rollout]]:
    """The mini-batches from `first` on, learnt."""
    found = []
    for k in range(first, STEPS):
        found.append(answered(trainee, seed=k))
        trainee.learn(found[-1])
        trainee.keep(f"after {k + 1}")
    return found
