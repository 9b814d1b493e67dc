"""A game of your own, made in Python: a policy that guesses a number, and prompts that move away.

Run it with ``python examples/own_game.py``; it needs nothing but eva's core. Every seam is a plain
function: replace them one at a time by your model, your reward, your evolver and your trainer.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from eva import (
    Checkpoint,
    Child,
    Message,
    Policy,
    Prompt,
    Response,
    Rollout,
    Sampling,
    ScoredPrompt,
    adapt,
    seeds,
)
from eva.formulas import selection
from eva.formulas.informativeness import a_min
from eva.game import Creator, Game
from eva.loop import run
from eva.start import quiet
from eva.store import held


def ask(number: float) -> Prompt:
    """A prompt that asks for a number."""
    return Prompt(messages=(Message(role="user", content=f"{number:.3f}"),), by="example")


@contextmanager
def open_policy(checkpoint: Checkpoint) -> Iterator[Policy]:
    """A policy that guesses around one number, which is all it has learnt so far."""
    path = Path(checkpoint.uri)
    centre = float(json.loads(path.read_text())) if path.is_file() else 0.0

    def policy(
        prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        return [
            [Response(text=f"{g:.4f}") for g in seeds.rng(seed, p.id).normal(centre, 0.3, n)]
            for p in prompts
        ]

    yield policy


def score(prompt: Prompt, response: Response) -> float:
    """The nearer the better."""
    return -abs(float(prompt.messages[0].content) - float(response.text))


def evolve(parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int) -> list[Child]:
    """A number a little further away."""
    return [
        Child(
            parent=parent.prompt.id,
            messages=ask(float(parent.prompt.messages[0].content) + step).messages,
            method="further",
            change=f"+ {step:.2f}",
            by="example",
        )
        for parent in parents
        for step in seeds.rng(seed, parent.prompt.id).uniform(0.05, 0.2, 4)
    ]


def learn(start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int) -> Checkpoint:
    """Move to the mean of the best guesses."""
    best = []
    for rollout in lessons:
        rewarded = [(r, y) for r, y in zip(rollout.rewards, rollout.responses, strict=True) if r]
        if rewarded:  # a missing reward is None, and is left out
            best.append(float(max(rewarded, key=lambda pair: pair[0])[1].text))
    path = out / "centre.json"
    path.write_text(json.dumps(float(np.mean(best))))
    return Checkpoint(uri=str(path), id=path.read_text())


def main(folder: Path) -> str:
    """Play ten rounds; returns what the policy has learnt."""
    game = Game(
        prompts=tuple(ask(x) for x in np.linspace(0.0, 0.5, 16)),
        theta_0=Checkpoint(uri="nothing learnt yet", id="theta-0"),
        open_policy=open_policy,
        reward=adapt.per_response(score),
        learner=learn,
        rounds=10,
        creator=Creator(info=a_min, select=selection.proportional, evolver=evolve),
    )
    with held(folder, "own: game\n", {}, agree=lambda a, b: None, progress=quiet) as run_dir:
        for t, metrics in run(game, run_dir):
            print(t, {name: round(value, 3) for name, value in metrics.items()})
        state = run_dir.state()
    assert state is not None
    return state.checkpoint.id


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print("the policy guesses around", main(Path(scratch) / "run"))
