"""The solver's update by preference pairs: pairs -> reference -> loss -> step.

The weights that a round starts from are also its reference policy: before the first step they give
the log-probability of every response once, so no second model is held. Each optimiser step then
goes over its pairs in micro-batches whose gradients add up to that of the mean over all of them.

Several processes (``torchrun``) split the pairs of a step; the main one writes.
"""

import gc
import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from transformers import PreTrainedModel

from eva import seeds
from eva.checkpoints import fingerprint
from eva.config import DpoLearner, HfPolicy
from eva.errors import BackEndError
from eva.learn.batches import (
    TokenPair,
    micro_batches,
    padded_batch,
    token_pairs,
)
from eva.learn.losses import PairLogps, dpo, implicit_rewards, token_logprobs
from eva.learn.schedule import Index, learning_rate, planned_steps
from eva.learn.weights import checkpoint_gradients, opened, saved
from eva.pairs import best_worst_pairs
from eva.protocols import Learner
from eva.records import Checkpoint, Rollout
from eva.store import write_json, write_whole

log = logging.getLogger(__name__)


def make_learner(config: DpoLearner, policy: HfPolicy | None = None) -> Learner:
    """A learner that fits the policy to best-against-worst pairs by DPO.

    Below `out` it writes ``checkpoint/`` (Hugging Face format, float32, with the tokenizer),
    ``log.jsonl`` (one line for each optimiser step, also if it stops early) and ``pairs.json`` (how
    many rollouts made pairs). Where no rollout makes a pair there are no steps: the checkpoint
    holds the weights of the start and the log is empty.

    Args:
        config: The learner's part of the recipe.
        policy: The policy's part: its device, its threads, and its revision if the start is its
            hub id.
    """

    def learner(
        start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int
    ) -> Checkpoint:
        try:
            with _threads(policy.threads if policy else None):
                return _learnt(start, lessons, config=config, policy=policy, out=out, seed=seed)
        finally:
            if torch.cuda.is_available():  # pragma: no cover - needs a GPU
                gc.collect()
                torch.cuda.empty_cache()

    return learner


def _learnt(
    start: Checkpoint,
    lessons: Sequence[Rollout],
    *,
    config: DpoLearner,
    policy: HfPolicy | None,
    out: Path,
    seed: int,
) -> Checkpoint:
    """What the learner of `make_learner` returns."""
    revision = policy.revision if policy and policy.model == start.uri else None
    weights = opened(start.uri, revision)
    found = best_worst_pairs(lessons)
    pairs = token_pairs(found.pairs, weights.tokenizer)
    plan = planned_steps(len(pairs), config, seed)
    accelerator = _accelerator(policy.device if policy else "auto")
    if accelerator.is_main_process:  # pragma: no branch - the others write nothing
        counts = {"rollouts": len(lessons), "pairs": len(pairs), "steps": len(plan)}
        counts |= {"ties": found.ties, "missing": found.missing}
        log.info("learn: %s", counts)
        write_json(out / "pairs.json", dict(counts))
    with _named_randomness(accelerator, seed):
        _play(_made_solver(accelerator, weights.model, pairs, config), plan, out / "log.jsonl")
    if accelerator.is_main_process:  # pragma: no branch - the others wait below
        saved(weights, out / "checkpoint")
    accelerator.wait_for_everyone()
    return Checkpoint(uri=str(out / "checkpoint"), id=fingerprint(out / "checkpoint"))


@dataclass(frozen=True)
class _Solver:
    """What learns, and from what."""

    accelerator: Accelerator
    model: nn.Module
    """The model, wrapped where there are several processes."""
    optimizer: torch.optim.Optimizer
    pairs: Sequence[TokenPair]
    config: DpoLearner
    is_bfloat16: bool
    """Whether matrix products are in bfloat16; the weights and the losses never are."""


def _accelerator(device: str) -> Accelerator:
    """A fresh accelerator, which holds no model of an earlier round.

    Mixed precision is off here: accelerate would turn all logits into float32.
    """
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if device.startswith("cuda"):  # pragma: no cover - needs a GPU
        torch.cuda.set_device(device)
    # The models have no running statistics that processes would have to share.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[ddp])


def _made_solver(
    accelerator: Accelerator,
    model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    config: DpoLearner,
) -> _Solver:
    if config.gradient_checkpointing:
        checkpoint_gradients(model)
    model.to(accelerator.device)
    # Weight decay is for matrices, as is usual; the paper does not specify it.
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )
    prepared, optimizer = accelerator.prepare(model, optimizer)
    on_cuda = accelerator.device.type == "cuda"
    is_bfloat16 = config.dtype == "bfloat16" or (config.dtype == "auto" and on_cuda)
    return _Solver(accelerator, prepared, optimizer, pairs, config, is_bfloat16)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """The CPU threads of the policy's part, for the update too; None leaves them to torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _named_randomness(accelerator: Accelerator, seed: int) -> Iterator[None]:
    """Dropout draws from the seed of the update; the generators outside are left as they were."""
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seeds.child(seed, "torch", accelerator.process_index))
        yield


def _play(solver: _Solver, plan: Sequence[Index], path: Path) -> None:
    """Make all steps of the plan; their log is written in any case."""
    rows: list[dict[str, float]] = []
    try:
        for row in _updates(solver, plan):
            rows.append(row)
            log.debug("learn: %s", row)
    except torch.OutOfMemoryError as error:  # pragma: no cover - needs a GPU that is full
        raise BackEndError(
            f"the device has no memory left in step {len(rows) + 1} of {len(plan)}; lower "
            "learner.micro_tokens, or set learner.gradient_checkpointing to true"
        ) from error
    finally:
        if solver.accelerator.is_main_process:  # pragma: no branch - as above
            write_whole(path, (json.dumps(row).encode() + b"\n" for row in rows))


def _updates(solver: _Solver, plan: Sequence[Index]) -> Iterator[dict[str, float]]:
    """Play the plan; one row of the log for each optimiser step, after it is made.

    Raises:
        BackEndError: A loss or a gradient is not finite; the step is not made.
    """
    reference_N_2 = _reference_logps(solver, plan)
    parameters = list(solver.model.parameters())
    solver.model.train()
    for k, step in enumerate(plan):
        lr = learning_rate(k, len(plan), solver.config)
        for group in solver.optimizer.param_groups:
            group["lr"] = lr
        means = _accumulated(solver, step, reference_N_2)
        norm: Any = solver.accelerator.clip_grad_norm_(parameters, solver.config.clip or math.inf)
        row: dict[str, float] = {"step": k + 1, **means}
        row |= {"grad_norm": _short(float(norm)), "lr": _short(lr)}
        if not all(map(math.isfinite, row.values())):
            raise BackEndError(
                f"step {k + 1} of {len(plan)} gives loss {row['loss']} and a gradient of norm "
                f"{row['grad_norm']} at learning rate {lr:g}; the start checkpoint is untouched: "
                "lower learner.lr (or set learner.clip), and if it is the first step, see whether "
                "the start answers sensibly"
            )
        solver.optimizer.step()
        solver.optimizer.zero_grad()
        responses = sum(solver.pairs[i].tokens for i in step)
        yield row | {"pairs": len(step), "tokens": responses}


def _reference_logps(solver: _Solver, plan: Sequence[Index]) -> Tensor:
    """The reference's log-probabilities of every planned pair: [N, 2], chosen and rejected.

    The reference is the policy that answered: the starting weights, without dropout.
    """
    reference_N_2 = torch.zeros(len(solver.pairs), 2, device=solver.accelerator.device)
    if not plan:
        return reference_N_2
    solver.model.eval()
    mine = _shard(np.unique(np.concatenate(plan)), solver.accelerator)
    with torch.no_grad():
        for micro in micro_batches(solver.pairs, mine, solver.config.micro_tokens):
            reference_N_2[micro] = torch.stack(_logps(solver, micro), dim=1)
    return _summed(reference_N_2, solver.accelerator)


def _accumulated(solver: _Solver, step: Index, reference_N_2: Tensor) -> dict[str, float]:
    """Add the gradient of the mean loss over a step to the weights' gradients; its means."""
    config, accelerator = solver.config, solver.accelerator
    mine = _shard(step, accelerator)
    # Processes that run out of pairs take part in the exchange of gradients with a weight of zero.
    share = 1.0 / len(step) if len(mine) else 0.0
    passes = micro_batches(solver.pairs, mine if len(mine) else step[:1], config.micro_tokens)
    sums_4 = torch.zeros(4, device=accelerator.device)
    for number, micro in enumerate(passes, 1):
        is_last = number == len(passes)
        with nullcontext() if is_last else accelerator.no_sync(solver.model):
            logps = _pair_logps(solver, micro, reference_N_2)
            loss_M = dpo(logps, beta=config.beta, label_smoothing=config.label_smoothing)
            # Gradients are averaged over processes, so each counts as many times as there are.
            accelerator.backward(loss_M.sum() * share * accelerator.num_processes)
        chosen_M, rejected_M = (r.detach() for r in implicit_rewards(logps, beta=config.beta))
        wins_M = (chosen_M > rejected_M).float()
        sums_4 += share * torch.stack([loss_M.detach(), wins_M, chosen_M, rejected_M]).sum(1)
    loss, accuracy, chosen, rejected = _summed(sums_4, accelerator).tolist()
    means = {"loss": loss, "accuracy": accuracy, "reward_chosen": chosen}
    means |= {"reward_rejected": rejected, "margin": chosen - rejected}
    return {name: _short(mean) for name, mean in means.items()}


def _pair_logps(solver: _Solver, micro: Index, reference_N_2: Tensor) -> PairLogps:
    chosen_M, rejected_M = _logps(solver, micro)
    lengths = [(len(solver.pairs[i].chosen), len(solver.pairs[i].rejected)) for i in micro]
    lengths_M_2 = torch.tensor(lengths, device=reference_N_2.device)
    return PairLogps(chosen_M, rejected_M, *reference_N_2[micro].T, *lengths_M_2.T)


def _logps(solver: _Solver, micro: Index) -> tuple[Tensor, Tensor]:
    """The policy's log-probabilities of chosen and rejected responses, of M pairs."""
    device = solver.accelerator.device
    batch = padded_batch([solver.pairs[i] for i in micro])
    inputs, mask, positions, responses, response_mask = (
        torch.from_numpy(array).to(device) for array in astuple(batch)
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=solver.is_bfloat16):
        logits_B_R_V = solver.model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=responses.shape[1],
            use_cache=False,
        ).logits
    chosen_M, rejected_M = token_logprobs(logits_B_R_V, responses, response_mask).chunk(2)
    return chosen_M, rejected_M


def _shard(index: Index, accelerator: Accelerator) -> Index:
    return index[accelerator.process_index :: accelerator.num_processes]


def _summed(values: Tensor, accelerator: Accelerator) -> Tensor:
    # Its declared result is that of any nest of tensors.
    summed: Any = accelerator.reduce(values, reduction="sum")
    return cast(Tensor, summed)


def _short(value: float) -> float:
    """Six digits: more would only say in which order a machine adds."""
    return float(f"{value:.6g}")
