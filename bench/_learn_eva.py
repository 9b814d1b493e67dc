"""eva's side of bench/learn.py: an update on pairs, and one that samples for itself."""

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _learn_cases import SEED, Case, Offline, Online, asked
from eva.learn.batches import TokenGroup
from eva.learn.objectives import objective
from eva.learn.online import make_learner
from eva.learn.schedule import Index, learning_rate, planned_steps
from eva.learn.solver import made_solver, scored, stepped
from eva.learn.weights import opened
from eva.parts.learners import Dpo, Rloo
from eva.parts.policies import HfPolicy
from eva.protocols import Trainee
from eva.records import Checkpoint, Prompt, Rollout, Sampling

GENERATIONS = 8
"""Responses to a prompt in RLOO."""
LR = 1e-5
BETA = 0.1


@dataclass(frozen=True)
class Timed:
    """One run of one arm."""

    seconds: float
    """CPU seconds."""
    tokens: int
    """Tokens that were learnt from: prompt and responses of pairs, or sampled ones."""
    loss: float
    """Mean of the logged losses; the same for both sides where both saw the same pairs."""
    setup: float = 0.0
    """CPU seconds from the loaded model until it could begin; not in `seconds`."""


def dpo(load: Offline, share_prompts: bool | None = None) -> Dpo:
    """The learner's part of a recipe."""
    return Dpo(
        kind="dpo",
        epochs=None,
        steps=load.steps,
        batch=load.batch,
        beta=BETA,
        lr=LR,
        warmup=0,
        schedule="constant",
        share_prompts=share_prompts,
    )


def plan(load: Offline, groups: Sequence[TokenGroup]) -> list[Index]:
    """The pairs of each optimiser step, for both sides."""
    return planned_steps([1] * len(groups), dpo(load), SEED)


def pair_tokens(groups: Sequence[TokenGroup], steps: Sequence[Index]) -> int:
    """Prompt and response tokens of the pairs in some steps; a prompt counts once for a pair."""
    return sum(len(groups[i].prompt) + groups[i].tokens for step in steps for i in step)


def eva_dpo(folder: Path, load: Offline, groups: Sequence[TokenGroup], config: Dpo) -> Timed:
    """One update: the reference pass, then the steps."""
    steps = plan(load, groups)
    weights = opened(str(folder))
    begun = time.process_time()
    solver = made_solver(weights, config, objective(config, 1), "cpu")
    gc.collect()
    start = time.process_time()
    reference = scored(solver, solver.scorer, groups, np.unique(np.concatenate(steps)))
    losses = []
    for k, step in enumerate(steps):
        lr = learning_rate(k, len(steps), config)
        row = stepped(solver, groups, step, lr=lr, reference=reference, seed=k)
        losses.append(row["loss"])
    seconds = time.process_time() - start
    return Timed(seconds, pair_tokens(groups, steps), float(np.mean(losses)), start - begun)


def reward(tokens: Sequence[int]) -> float:
    """A number that hardly ever ties."""
    return sum(tokens) % 101 / 100


def eva_rloo(folder: Path, case: Case, load: Online, kl: float) -> Timed:
    """Samples and learns, mini-batch by mini-batch."""
    config = Rloo(
        kind="rloo", steps=load.steps, batch=load.prompts, kl=kl, lr=LR, warmup=0, save_steps=None
    )
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=load.max_tokens)
    policy = HfPolicy(model=str(folder), dtype="float32", device="cpu")
    checkpoint = Checkpoint(uri=str(folder), id="start")
    learner = make_learner(config, policy, sampling, rounds=1)
    prompts = asked(case, load)
    with (
        tempfile.TemporaryDirectory() as out,
        learner(checkpoint, reference=checkpoint, out=Path(out), seed=SEED, round=0) as trainee,
    ):
        gc.collect()
        tokens, losses, start = 0, [], time.process_time()
        for k in range(load.steps):
            batch = prompts[k * load.prompts : (k + 1) * load.prompts]
            rollouts = _answered(trainee, batch, sampling, k)
            losses.append(trainee.learn(rollouts)["loss"])
            tokens += sum(len(y.tokens or ()) for rollout in rollouts for y in rollout.responses)
        seconds = time.process_time() - start
    return Timed(seconds, tokens, float(np.mean(losses)))


def _answered(
    trainee: Trainee, batch: Sequence[Prompt], sampling: Sampling, seed: int
) -> list[Rollout]:
    answers = trainee.policy(batch, GENERATIONS, sampling=sampling, seed=seed)
    return [
        Rollout(
            prompt=prompt,
            responses=tuple(group),
            rewards=tuple(reward(y.tokens or ()) for y in group),
            policy="start",
            round=0,
        )
        for prompt, group in zip(batch, answers, strict=True)
    ]
