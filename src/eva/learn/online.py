"""The solver's update where it samples for itself: one model answers and learns in turn.

There is no copy of the weights: the sampler reads those that the optimiser moves, so every answer
comes from the policy as it is. One device; to learn on several, take an offline learner.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from eva import seeds
from eva.backends.hf import Opened
from eva.checkpoints import fingerprint
from eva.errors import BackEndError
from eva.learn import snapshots
from eva.learn.batches import TokenGroup
from eva.learn.objectives import Objective, objective
from eva.learn.schedule import Index, learning_rate
from eva.learn.scorer import Inputs, Scorer
from eva.learn.snapshots import Log, Progress
from eva.learn.solver import Solver, Table, made_solver, scored, stepped, token_groups
from eva.learn.trainer import (
    Pace,
    as_update,
    memory_given_back,
    out_of_memory,
    revision,
    threads,
    write_log,
)
from eva.learn.weights import Weights, is_base_of, opened, saved, without_adapter
from eva.parts.learners import OwnOnline
from eva.parts.policies import HfPolicy
from eva.protocols import OnlineLearner
from eva.records import Checkpoint, Prompt, Response, Rollout, Sampling

OPTIMIZER = "optimizer.pt"
"""Where the optimiser's state waits beside a checkpoint, so that the next round goes on with it."""


def make_learner(
    config: OwnOnline, policy: HfPolicy, sampling: Sampling, rounds: int
) -> OnlineLearner:
    """A learner that answers and learns in turn, mini-batch by mini-batch.

    Below `out` it writes ``checkpoint/`` (Hugging Face format, float32), ``optimizer.pt`` and
    ``log.jsonl`` (one line for each optimiser step). The optimiser goes on from round to round, and
    the schedule spans all rounds.

    Args:
        config: The learner's part of the recipe.
        policy: The policy's part: device, threads, rows, and its revision.
        sampling: How responses are drawn; bounds their length.
        rounds: Rounds of the run.
    """
    aim = objective(config, sampling.max_tokens)

    @contextmanager
    def learner(
        start: Checkpoint, *, reference: Checkpoint, out: Path, seed: int, round: int
    ) -> Iterator[_Trainee]:
        anchor = reference if config.reference == "theta_0" else start
        task = _Task(config, out, seed, round * config.steps, rounds * config.steps)
        with memory_given_back(), threads(policy):
            trainee = _begun(task, policy, aim, start, anchor)
            try:
                yield trainee
            finally:
                trainee.close()

    return learner


def _begun(
    task: "_Task", policy: HfPolicy, aim: Objective, start: Checkpoint, anchor: Checkpoint
) -> "_Trainee":
    """The trainee of a round, at its last snapshot if there is one."""
    config = task.config
    weights = opened(start.uri, revision(start, policy), config.lora, seed=task.seed)
    solver = made_solver(weights, config, aim, policy.device)
    update = seeds.digest([start.id, str(task.seed), as_update(config)])
    snapshots.begun(solver.accelerator, task.out, update)
    is_fresh = config.lora is not None and config.lora.merge
    if task.first and not is_fresh:
        _go_on_with_optimizer(solver, Path(start.uri).parent / OPTIMIZER)
    frozen = _frozen(anchor, policy, solver, weights) if aim.needs_reference else None
    return _Trainee(task, weights, solver, frozen, policy.rows)


def _go_on_with_optimizer(solver: Solver, path: Path) -> None:
    """Take over the moments of the round before; an adapter that begins anew has none.

    Raises:
        BackEndError: They are gone.
    """
    if not path.exists():
        raise BackEndError(
            f"{path}, the state of the optimiser after the round before, is gone; restore it, or "
            "give the run a new folder"
        )
    solver.optimizer.load_state_dict(torch.load(path, map_location=solver.accelerator.device))


class _Below(nn.Module):
    """The reference where it is what lies below the adapter: no other weights in memory."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, batch: Inputs) -> Tensor:
        """Log-probabilities as `Scorer` gives them, without the adapter."""
        with without_adapter(self.scorer.model):
            found: Tensor = self.scorer(batch)
        return found


def _frozen(
    reference: Checkpoint, policy: HfPolicy, solver: Solver, weights: Weights
) -> Scorer | _Below:
    """The reference; other weights in memory unless it is the base of the adapter."""
    if is_base_of(weights, reference.uri, revision(reference, policy)):
        return _Below(Scorer(weights.model, solver.dtype))
    model = opened(reference.uri, revision(reference, policy)).model
    model.requires_grad_(requires_grad=False)
    model.to(solver.accelerator.device)
    return Scorer(model, solver.dtype)


@dataclass(frozen=True)
class _Task:
    """What one round of an online learner is to do."""

    config: OwnOnline
    out: Path
    """The folder of the update."""
    seed: int
    first: int
    """Mini-batches of the rounds before."""
    all: int
    """Mini-batches of the run."""


class _Trainee:
    """The model of one round, until it is closed."""

    def __init__(
        self,
        task: _Task,
        weights: Weights,
        solver: Solver,
        reference: Scorer | _Below | None,
        rows: int,
    ) -> None:
        self._task, self._reference = task, reference
        self._held: tuple[Weights, Solver] | None = (weights, solver)
        progress = snapshots.resumed(solver, task.out)
        self.step, self.notes = progress.step, progress.notes
        self._log: Log = list(progress.log)
        self._pace = Pace(task.config.steps)
        self._opened = Opened(weights.model, weights.tokenizer, rows)

    @property
    def _weights(self) -> Weights:
        return self._whole()[0]

    @property
    def _solver(self) -> Solver:
        return self._whole()[1]

    def _whole(self) -> tuple[Weights, Solver]:
        if self._held is None:
            raise BackEndError(
                "expected an open policy; this trainee was closed when its context was left"
            )
        return self._held

    def close(self) -> None:
        """Give the memory back, even if somebody still holds this trainee."""
        self._opened.close()
        self._held = self._reference = None

    def policy(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer with the weights as they are now."""
        model, device = self._weights.model, self._solver.accelerator.device.type
        model.eval()  # type: ignore[no-untyped-call]  # theirs
        is_narrow = self._solver.dtype is not None
        with torch.autocast(device, self._solver.dtype or torch.bfloat16, enabled=is_narrow):
            return self._opened(prompts, n, sampling=sampling, seed=seed)

    def learn(self, lessons: Sequence[Rollout]) -> dict[str, float]:
        """Update the weights by one mini-batch, `reuse` times; means of the log of these steps.

        A mini-batch that teaches nothing (all rewards of each group equal, and no penalty) moves
        no weight and has no row in the log.

        Raises:
            BackEndError: A loss or a gradient is not finite; the step is not made.
        """
        taught = self._solver.objective.taught(lessons)
        groups = token_groups(taught.lessons, self._weights.tokenizer)
        everything = np.arange(len(groups), dtype=np.intp)
        rows: Log = []
        if self._teaches(groups):
            try:
                rows = self._steps(groups, everything)
            except torch.OutOfMemoryError as error:  # pragma: no cover - needs a full GPU
                raise out_of_memory(self.step + 1, self._task.config.steps) from error
        self._log += rows
        self.step += 1
        counts = {"ties": float(taught.ties), "missing": float(taught.missing)}
        tokens = float(sum(group.tokens for group in groups))
        self._pace.told({"step": self.step, "tokens": tokens, **(rows[-1] if rows else {})})
        names = [name for name in rows[0] if name != "step"] if rows else []
        return counts | {name: float(np.mean([row[name] for row in rows])) for name in names}

    def _teaches(self, groups: Sequence[TokenGroup]) -> bool:
        """Whether any group adds to the gradient."""
        if self._solver.objective.skips_ties:
            return any(any(group.signals) for group in groups)
        return bool(groups)

    def _steps(self, groups: Sequence[TokenGroup], everything: Index) -> Log:
        """The optimiser steps on one mini-batch."""
        solver, reuse = self._solver, self._task.config.reuse
        look_up = partial(scored, solver, groups=groups, index=everything)
        reference = None if self._reference is None else look_up(scorer=self._reference)
        old: Table | None = look_up(scorer=solver.scorer) if reuse > 1 else None
        rows: Log = []
        for again in range(reuse):
            k = (self._task.first + self.step) * reuse + again
            lr = learning_rate(k, self._task.all * reuse, self._task.config)
            named = seeds.child(self._task.seed, "step", self.step, again)
            try:
                row = stepped(
                    solver, groups, everything, lr=lr, reference=reference, old=old, seed=named
                )
            except BackEndError as error:
                raise self._stopped(error) from error
            rows.append({"step": self.step + 1, **row})
        return rows

    def _stopped(self, error: BackEndError) -> BackEndError:
        solver = self._solver
        saved(self._weights, solver.accelerator, solver.scorer, self._task.out / "last_good")
        return BackEndError(
            f"mini-batch {self.step + 1} of {self._task.config.steps} gives {error}; last_good "
            "in the learn folder of this round holds the weights before it"
        )

    def keep(self, notes: str) -> None:
        """Write a snapshot if it is time for one."""
        every = self._task.config.save_steps
        if every and self.step % every == 0 and self.step < self._task.config.steps:
            snapshots.keep(self._solver, self._task.out, Progress(self.step, self._log, notes))

    def finish(self) -> Checkpoint:
        """Write checkpoint, optimiser and log; remove the snapshots."""
        solver, folder = self._solver, self._task.out / "checkpoint"
        saved(self._weights, solver.accelerator, solver.scorer, folder)
        torch.save(solver.optimizer.state_dict(), self._task.out / OPTIMIZER)
        write_log(solver, self._task.out, self._log)
        snapshots.cleared(solver, self._task.out)
        return Checkpoint(uri=str(folder), id=fingerprint(folder))
