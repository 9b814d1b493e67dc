"""The world of numbers: the whole game in well under a second, without torch.

A prompt is a difficulty d, written as text. A policy is one number, its skill s: it answers with
the effort y = s + noise. The reward is 1 / (1 + exp(4 (d - y))): effort above the difficulty is
rewarded, and on prompts far too easy or far too hard all rewards are alike. The learner raises the
skill by the mean margin of its lessons, so a policy stops growing when its prompts have nothing
left to teach, which is what eva is about. Our choice throughout; the tests of the core play here.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from eva import seeds
from eva.errors import BackEndError
from eva.parts.evolvers import ToyEvolver
from eva.parts.learners import ToyLearner, ToyOnline
from eva.parts.prompts import ToyPrompts
from eva.protocols import Evolver, Floats_P_G, Learner, OnlineLearner, Policy, Trainee
from eva.records import (
    Checkpoint,
    Child,
    Message,
    Prompt,
    Response,
    Rollout,
    Sampling,
    ScoredPrompt,
)
from eva.store import write_json

STEEPNESS = 4.0
"""How sharply the reward rises around the difficulty."""


def messages(difficulty: float) -> tuple[Message, ...]:
    """The chat that asks for a difficulty."""
    return (Message(role="user", content=f"{difficulty:.6f}"),)


def difficulty(prompt: Prompt) -> float:
    """The difficulty that a prompt asks for."""
    return float(prompt.messages[-1].content)


def prompts(config: ToyPrompts, seed: int) -> list[Prompt]:
    """Distinct difficulties, drawn uniformly from [low, high)."""
    rng = seeds.rng(seed if config.seed is None else config.seed, "toy", "prompts")
    drawn: dict[str, Prompt] = {}
    while len(drawn) < config.n:
        prompt = Prompt(messages=messages(float(rng.uniform(config.low, config.high))), by="toy")
        drawn.setdefault(prompt.id, prompt)
    return list(drawn.values())


def save(folder: Path, skill: float) -> Checkpoint:
    """Write a skill as a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "skill.json").write_text(json.dumps({"skill": skill}))
    return Checkpoint(uri=str(folder), id=f"skill-{skill:.12g}")


def skill_of(checkpoint: Checkpoint) -> float:
    """Read a skill; "toy:0.5" stands for the skill 0.5 without a file."""
    if checkpoint.uri.startswith("toy:"):
        return float(checkpoint.uri.removeprefix("toy:"))
    try:
        return float(json.loads((Path(checkpoint.uri) / "skill.json").read_bytes())["skill"])
    except (OSError, ValueError, KeyError) as error:
        raise BackEndError(
            f"{checkpoint.uri} is no toy checkpoint; expected a folder with skill.json"
        ) from error


@contextmanager
def open_policy(checkpoint: Checkpoint) -> Iterator[Policy]:
    """Open a skill as a policy."""
    yield partial(answers, skill_of(checkpoint))


def answers(
    skill: float, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
) -> list[list[Response]]:
    """What a skill answers: itself plus noise."""
    return [
        [
            Response(text=f"{skill + sampling.temperature * noise:.6f}")
            for noise in seeds.rng(seed, prompt.id).standard_normal(n)
        ]
        for prompt in prompts
    ]


def reward(prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> Floats_P_G:
    """1 / (1 + exp(4 (d - y))), in (0, 1)."""
    efforts_P_G = np.array([[float(r.text) for r in group] for group in responses])
    difficulty_P = np.array([difficulty(prompt) for prompt in prompts])
    lacking_P_G = difficulty_P[:, None] - efforts_P_G
    rewards_P_G: Floats_P_G = 1.0 / (1.0 + np.exp(STEEPNESS * lacking_P_G))
    return rewards_P_G


def make_evolver(config: ToyEvolver) -> Evolver:
    """An evolver that adds a step, drawn uniformly from [0, config.step), to the difficulty."""

    def evolve(parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int) -> list[Child]:
        return [
            Child(
                parent=parent.prompt.id,
                messages=messages(difficulty(parent.prompt) + float(step)),
                method="step",
                change=f"+ {step:.3f}",
                by="toy",
            )
            for parent in parents
            for step in seeds.rng(seed, parent.prompt.id).uniform(0, config.step, config.children)
        ]

    return evolve


def make_learner(config: ToyLearner) -> Learner:
    """A learner that raises the skill by lr times the mean margin of the lessons."""

    def learn(start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int) -> Checkpoint:
        return save(out / "checkpoint", skill_of(start) + config.lr * mean_margin(lessons))

    return learn


def make_online_learner(config: ToyOnline) -> OnlineLearner:
    """A learner that raises the skill after each mini-batch by lr times its mean margin."""

    @contextmanager
    def learner(
        start: Checkpoint, *, reference: Checkpoint, out: Path, seed: int, round: int
    ) -> Iterator[Trainee]:
        yield _Trainee(config, skill_of(start), out)

    return learner


class _Trainee:
    """A skill that answers and grows mini-batch by mini-batch."""

    def __init__(self, config: ToyOnline, skill: float, out: Path) -> None:
        self._config, self._out, self._snapshot = config, out, out / "snapshot.json"
        self.step: int = 0
        self.notes: str | None = None
        self._set(skill)
        if self._snapshot.exists():
            found = json.loads(self._snapshot.read_bytes())
            self.step, self.notes = found["step"], found["notes"]
            self._set(found["skill"])

    def _set(self, skill: float) -> None:
        self._skill = skill
        self.policy: Policy = partial(answers, skill)

    def learn(self, lessons: Sequence[Rollout]) -> dict[str, float]:
        """Grow by the margin of a mini-batch."""
        margin = mean_margin(lessons)
        self._set(self._skill + self._config.lr * margin)
        self.step += 1
        return {"margin": margin, "skill": self._skill}

    def keep(self, notes: str) -> None:
        """Write a snapshot every `save_steps` mini-batches."""
        if self._config.save_steps and self.step % self._config.save_steps == 0:
            write_json(self._snapshot, {"step": self.step, "skill": self._skill, "notes": notes})

    def finish(self) -> Checkpoint:
        """Write the skill, and remove the snapshot."""
        checkpoint = save(self._out / "checkpoint", self._skill)
        self._snapshot.unlink(missing_ok=True)
        return checkpoint


def mean_margin(lessons: Sequence[Rollout]) -> float:
    """The mean of best minus worst reward over the lessons that have rewards, else 0."""
    margins = [max(r) - min(r) for r in (_present(rollout) for rollout in lessons) if r]
    return float(np.mean(margins)) if margins else 0.0


def _present(rollout: Rollout) -> list[float]:
    return [reward for reward in rollout.rewards if reward is not None]
