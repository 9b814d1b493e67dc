"""The solver's update on a round's lessons: lessons -> reference -> steps -> checkpoint.

The weights that a round starts from are also its reference policy: before the first step they give
the log-probability of every response once, so no second model is held. Several processes
(`learner.launch`) split the pairs of a step; the main one writes.
"""

import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from eva import seeds
from eva.backends.memory import give_back_memory
from eva.checkpoints import fingerprint
from eva.errors import BackEndError
from eva.jobs import lessons_digest
from eva.learn import snapshots
from eva.learn.batches import TokenGroup
from eva.learn.objectives import Taught, objective
from eva.learn.schedule import Index, learning_rate, planned_steps
from eva.learn.snapshots import Log, Progress
from eva.learn.solver import (
    Solver,
    Table,
    made_solver,
    scored,
    stepped,
    token_groups,
)
from eva.learn.weights import Weights, opened, saved
from eva.parts.learners import OwnOffline, Update
from eva.parts.policies import LanguageModel
from eva.protocols import Learner
from eva.records import Checkpoint, Rollout
from eva.store import write_json, write_whole

log = logging.getLogger(__name__)


def make_learner(config: OwnOffline, policy: LanguageModel | None = None) -> Learner:
    """A learner that fits the policy to the best-against-worst pairs of its lessons.

    Below `out` it writes ``checkpoint/`` (Hugging Face format, float32, with the tokenizer),
    ``log.jsonl`` (one line for each optimiser step, also if it stops early), ``pairs.json`` (how
    many rollouts made pairs) and ``reference.npy`` (the reference's log-probability of each
    response token). Where no rollout makes a pair there are no steps: the checkpoint holds the
    weights of the start and the log is empty. If it is killed, ``snapshot-*`` says how far it was.

    Args:
        config: The learner's part of the recipe.
        policy: The policy's part: its device, its threads, and its revision if the start is its
            hub id.
    """

    def learner(
        start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int
    ) -> Checkpoint:
        with threads(policy), memory_given_back():
            return _learnt(start, lessons, config=config, policy=policy, out=out, seed=seed)

    return learner


def _learnt(
    start: Checkpoint,
    lessons: Sequence[Rollout],
    *,
    config: OwnOffline,
    policy: LanguageModel | None,
    out: Path,
    seed: int,
) -> Checkpoint:
    """What the learner of `make_learner` returns."""
    weights = opened(start.uri, revision(start, policy), config.lora, seed=seed)
    aim = objective(config, max_tokens=1)
    taught = aim.taught(lessons)
    groups = token_groups(taught.lessons, weights.tokenizer)
    sizes = [len(group.prompt) + group.tokens for group in groups]
    plan = planned_steps(sizes, config, seed)
    solver = made_solver(weights, config, aim, policy.device if policy else "auto")
    update = [start.id, str(seed), as_update(config), lessons_digest(lessons)]
    snapshots.begun(solver.accelerator, out, seeds.digest(update))
    if solver.accelerator.is_main_process:  # pragma: no branch - the others write nothing
        counts = _counts(lessons, taught, plan)
        log.info("learn: %s", counts)
        _warn_of_texts(lessons)
        write_json(out / "pairs.json", dict(counts))
    _play(solver, groups, plan, out=out, seed=seed, weights=weights)
    saved(weights, solver.accelerator, solver.scorer, out / "checkpoint")
    snapshots.cleared(solver, out)
    return Checkpoint(uri=str(out / "checkpoint"), id=fingerprint(out / "checkpoint"))


def _warn_of_texts(lessons: Sequence[Rollout]) -> None:
    """Say that a policy gave texts without its tokens, for the learner then has to guess them."""
    unknown = sum(y.tokens is None for lesson in lessons for y in lesson.responses)
    if unknown:
        log.warning(
            "%d responses have no token ids; their texts are tokenised again, with the tokenizer's "
            "end token: take a server that gives ids (vLLM, eva serve), so that what is learnt is "
            "what was sampled",
            unknown,
        )


def _counts(lessons: Sequence[Rollout], taught: Taught, plan: Sequence[Index]) -> dict[str, int]:
    counts = {"rollouts": len(lessons), "pairs": len(taught.lessons), "steps": len(plan)}
    return counts | {"ties": taught.ties, "missing": taught.missing}


def as_update(config: Update) -> str:
    """What of a learner's part moves its results, as text."""
    how = {"micro_tokens", "gradient_checkpointing", "share_prompts", "save_steps", "launch"}
    return config.model_dump_json(exclude=how)


def revision(start: Checkpoint, policy: LanguageModel | None) -> str | None:
    """The revision of a start that is the policy's hub id."""
    return policy.revision if policy and policy.model == start.uri else None


def _play(
    solver: Solver,
    groups: Sequence[TokenGroup],
    plan: Sequence[Index],
    *,
    out: Path,
    seed: int,
    weights: Weights,
) -> None:
    """Make all steps of the plan, from where a killed attempt stopped; their log is written."""
    reference = _reference(solver, groups, plan, out) if solver.objective.needs_reference else None
    progress = snapshots.resumed(solver, out)
    rows: Log = list(progress.log)
    try:
        for row in _updates(solver, groups, plan, reference, progress.step, seed):
            rows.append(row)
            k = len(rows)
            if solver.config.save_steps and k % solver.config.save_steps == 0 and k < len(plan):
                snapshots.keep(solver, out, Progress(k, rows))
    except BackEndError:
        saved(weights, solver.accelerator, solver.scorer, out / "last_good")
        raise
    except torch.OutOfMemoryError as error:  # pragma: no cover - needs a GPU that is full
        raise out_of_memory(len(rows) + 1, len(plan)) from error
    finally:
        write_log(solver, out, rows)


def _updates(
    solver: Solver,
    groups: Sequence[TokenGroup],
    plan: Sequence[Index],
    reference: Table | None,
    first: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Play the plan from step `first`; one row of the log for each optimiser step, when it is made.

    Raises:
        BackEndError: A loss or a gradient is not finite; the step is not made.
    """
    pace = Pace(len(plan))
    for k, step in enumerate(plan[first:], first):
        lr = learning_rate(k, len(plan), solver.config)
        named = seeds.child(seed, "step", k)
        try:
            row = stepped(solver, groups, step, lr=lr, reference=reference, seed=named)
        except BackEndError as error:
            raise BackEndError(
                f"step {k + 1} of {len(plan)} gives {error}; the start checkpoint is untouched, "
                "and last_good beside this update's log holds the weights before the step"
            ) from error
        responses = sum(groups[i].tokens for i in step)
        row = {"step": k + 1, **row, "pairs": len(step), "tokens": responses}
        pace.told(row)
        yield row


def _reference(
    solver: Solver, groups: Sequence[TokenGroup], plan: Sequence[Index], out: Path
) -> Table:
    """The reference's log-probabilities of all planned pairs, computed once and then read.

    The reference is the policy that answered: the starting weights, without dropout.
    """
    path = out / "reference.npy"
    planned = np.unique(np.concatenate(plan)) if plan else np.zeros(0, dtype=np.intp)
    if path.exists():
        return Table(groups, torch.from_numpy(np.load(path)))
    table = scored(solver, solver.scorer, groups, planned)
    if solver.accelerator.is_main_process:  # pragma: no branch - the others read nothing
        write_array(path, table.values_N.numpy())
    solver.accelerator.wait_for_everyone()
    return table


class Pace:
    """Says in the run's log, now and then, how far an update is and how fast."""

    EVERY = 10.0
    """Seconds between two lines."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._began = self._last = time.monotonic()
        self._tokens = 0.0

    def told(self, row: dict[str, float]) -> None:
        """Count a step; write a line if it is time, or if it was the last."""
        now = time.monotonic()
        self._tokens += row["tokens"]
        if now - self._last >= self.EVERY or row["step"] == self._steps:
            speed = self._tokens / max(now - self._began, 1e-9)
            log.info(
                "learn: step %d of %d, %.0f tokens/s, %s", row["step"], self._steps, speed, row
            )
            self._last = now


def write_log(solver: Solver, out: Path, rows: Log) -> None:
    """Write one JSON line for each step."""
    if solver.accelerator.is_main_process:  # pragma: no branch - the others write nothing
        write_whole(out / "log.jsonl", (json.dumps(row).encode() + b"\n" for row in rows))


def write_array(path: Path, array: np.typing.NDArray[np.float32]) -> None:
    """Write a NumPy array, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_whole(path, [buffer.getvalue()])


def out_of_memory(step: int, steps: int) -> BackEndError:
    """What to do about a device that is full."""
    return BackEndError(
        f"the device has no memory left in step {step} of {steps}; lower learner.micro_tokens, or "
        "set learner.gradient_checkpointing to true"
    )


@contextmanager
def threads(policy: LanguageModel | None) -> Iterator[None]:
    """The CPU threads of the policy's part, for the update too; None leaves them to torch."""
    before = torch.get_num_threads()
    torch.set_num_threads((policy.threads if policy else None) or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_given_back() -> Iterator[None]:
    """On leaving, nothing of an update stays on the device."""
    try:
        yield
    finally:
        if torch.cuda.is_available():  # pragma: no cover - needs a GPU
            give_back_memory()
