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
from pathlib import Path

import numpy as np

from eva import seeds
from eva.config import ToyEvolver, ToyLearner, ToyPrompts
from eva.errors import BackEndError
from eva.protocols import Evolver, Floats_P_G, Learner, Policy
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
    skill = skill_of(checkpoint)

    def policy(
        prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        return [
            [
                Response(text=f"{skill + sampling.temperature * noise:.6f}")
                for noise in seeds.rng(seed, prompt.id).standard_normal(n)
            ]
            for prompt in prompts
        ]

    yield policy


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
        margins = [max(r) - min(r) for r in (_present(rollout) for rollout in lessons) if r]
        gain = config.lr * float(np.mean(margins)) if margins else 0.0
        return save(out / "checkpoint", skill_of(start) + gain)

    return learn


def _present(rollout: Rollout) -> list[float]:
    return [reward for reward in rollout.rewards if reward is not None]
