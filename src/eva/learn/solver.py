"""The solver: a model, its optimiser, and one step of gradient descent on token groups.

The gradient of a step is that of the mean over all its groups, however it is cut into micro-batches
and shared out over processes. Sizes: M groups, B responses, R tokens of the longest response.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eva import seeds
from eva.errors import BackEndError
from eva.learn.batches import (
    Costs,
    Pass,
    TokenGroup,
    micro_batches,
    padded_batch,
    prompt_tokens,
    response_tokens,
)
from eva.learn.objectives import Lesson, Objective, Rows
from eva.learn.policy_gradient import TokenLogps
from eva.learn.schedule import Index
from eva.learn.scorer import Inputs, Scorer, on_device, sharing_window
from eva.learn.weights import Weights, checkpoint_gradients
from eva.parts.learners import Update

CALL_COST = {"cpu": 5e6, "cuda": 7e10}
"""What a call of the model costs besides its tokens, as parameters x tokens per layer: the small
operations of a layer take as long as so much matrix product. Fitted on the CPU
(docs/bench-learn.md), and reckoned for a GPU of 400 Tflop/s that spends a millisecond per layer."""


@dataclass(frozen=True)
class Solver:
    """What learns, and how."""

    accelerator: Accelerator
    scorer: nn.Module
    """A `Scorer`, wrapped where there are several processes."""
    optimizer: torch.optim.Optimizer
    parameters: Sequence[nn.Parameter]
    """What the optimiser moves."""
    objective: Objective
    config: Update
    costs: Costs
    """How a step is cut into passes."""
    dtype: torch.dtype | None
    """Of the matrix products; None for that of the weights."""
    is_sharded: bool
    """Whether each process holds a part of the weights, so that all must ask the model together."""


def made_solver(weights: Weights, config: Update, objective: Objective, device: str) -> Solver:
    """A solver on a fresh accelerator, which holds no model of an earlier round.

    Args:
        weights: The weights to start from.
        config: How the gradient is followed.
        objective: What is taught.
        device: "auto", "cpu" or "cuda:N"; a launcher's processes each take their own.
    """
    accelerator = _accelerator(device)
    if config.gradient_checkpointing:
        checkpoint_gradients(weights.model)
    on_cuda = accelerator.device.type == "cuda"
    is_bfloat16 = config.dtype == "bfloat16" or (config.dtype == "auto" and on_cuda)
    is_sharded = accelerator.distributed_type == DistributedType.FSDP
    if not is_sharded:  # else each layer is cut before it moves there, for all may be too much
        weights.model.to(accelerator.device)
    dtype = torch.bfloat16 if is_bfloat16 else None
    if config.liger:
        _take_kernels(weights.model, accelerator.device.type)
    scorer = Scorer(weights.model, dtype)
    prepared, optimizer = accelerator.prepare(scorer, _optimizer(scorer, config))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    costs = _costs(weights.model, config, accelerator.device.type, is_sharded=is_sharded)
    return Solver(
        accelerator, prepared, optimizer, parameters, objective, config, costs, dtype, is_sharded
    )


def _take_kernels(model: PreTrainedModel, device: str) -> None:
    """Replace what Liger has faster kernels for; the output head stays ours.

    Raises:
        BackEndError: There is no CUDA device, or no liger-kernel.
    """
    if device != "cuda":
        raise BackEndError(
            f"learner.liger needs a CUDA device and the update runs on {device}; set it to false"
        )
    from transformers.integrations.liger import apply_liger_kernel  # pragma: no cover

    try:  # pragma: no cover - needs a GPU
        heads = {"cross_entropy": False, "fused_linear_cross_entropy": False}
        apply_liger_kernel(model, heads)  # type: ignore[no-untyped-call]  # theirs
    except ImportError as error:  # pragma: no cover - needs a GPU
        raise BackEndError(
            f"learner.liger needs liger-kernel ({error}): pip install liger-kernel"
        ) from error


def _costs(model: PreTrainedModel, config: Update, device: str, *, is_sharded: bool) -> Costs:
    """What passes of this model cost; see `CALL_COST`."""
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    call = CALL_COST.get(device, CALL_COST["cuda"]) * layers / model.num_parameters()
    # With gradient checkpointing a model keeps no cache while it trains.
    # A shared prompt takes another call of each layer, so of sharded ones all processes would have
    # to share or none.
    share = False if config.gradient_checkpointing or is_sharded else config.share_prompts
    return Costs(config.micro_tokens, round(call), share, sharing_window(model))


def _accelerator(device: str) -> Accelerator:
    """Mixed precision is off here: accelerate would turn all logits into float32."""
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if device.startswith("cuda"):  # pragma: no cover - needs a GPU
        torch.cuda.set_device(device)
    # The models have no running statistics that processes would have to share.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[ddp])
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin: Any = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise BackEndError(
                "the launcher's config asks for the first version of FSDP; expected "
                "fsdp_version: 2 (docs/multi-gpu.md)"
            )
        # It would tear embeddings and output head apart where they are one.
        plugin.cpu_ram_efficient_loading = False
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:  # pragma: no cover - no extra
        raise BackEndError(
            "the launcher's config asks for DeepSpeed, which clips and steps in one: a step that "
            "is not finite could not be held back; take FSDP2, which shards as much as ZeRO-3 "
            "(docs/multi-gpu.md)"
        )
    return accelerator


def _optimizer(scorer: nn.Module, config: Update) -> torch.optim.Optimizer:
    """Weight decay is for matrices, as is usual; the paper does not specify it."""
    trained = [p for p in scorer.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.lr, alpha=config.betas[1])
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def token_groups(lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerBase) -> list[TokenGroup]:
    """The lessons as token ids.

    Raises:
        BackEndError: The tokenizer has no chat template, or it makes nothing of a prompt.
    """
    prompts = prompt_tokens([lesson.prompt for lesson in lessons], tokenizer)
    return [
        TokenGroup(
            prompt=prompt,
            responses=tuple(response_tokens(y, tokenizer) for y in lesson.responses),
            signals=lesson.signals,
        )
        for prompt, lesson in zip(prompts, lessons, strict=True)
    ]


class Table:
    """The log-probabilities of all response tokens of some groups, one after the other."""

    def __init__(self, groups: Sequence[TokenGroup], values_N: Tensor | None = None) -> None:
        ends = np.cumsum([0, *(group.tokens for group in groups)])
        self._slices = [
            slice(*pair) for pair in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]
        self.values_N = torch.zeros(int(ends[-1])) if values_N is None else values_N

    def put(self, micro: Index, flat: Tensor) -> None:
        """Store what a pass over some groups gave."""
        sizes = [self._slices[i].stop - self._slices[i].start for i in micro]
        parts = torch.split(flat, sizes)
        for i, part in zip(micro, parts, strict=True):
            self.values_N[self._slices[i]] = part.to(self.values_N)

    def of(self, micro: Index) -> Tensor:
        """What was stored for some groups, in their order."""
        return torch.cat([self.values_N[self._slices[i]] for i in micro])


def scored(solver: Solver, scorer: nn.Module, groups: Sequence[TokenGroup], index: Index) -> Table:
    """The log-probabilities of the responses of groups[index] under `scorer`, without dropout."""
    table = Table(groups)
    was_training = scorer.training
    scorer.eval()
    with torch.no_grad():
        for one, counts in _passes(solver, groups, index, index[:1]):
            flat_N = scorer(_inputs(solver, groups, one))
            if counts:
                table.put(one.index, flat_N)
    scorer.train(was_training)
    summed = _summed(table.values_N.to(solver.accelerator.device), solver.accelerator)
    return Table(groups, summed.cpu())


def stepped(
    solver: Solver,
    groups: Sequence[TokenGroup],
    step: Index,
    *,
    lr: float,
    reference: Table | None = None,
    old: Table | None = None,
    seed: int,
) -> dict[str, float]:
    """Make one optimiser step on groups[step]; its log.

    Args:
        solver: What learns.
        groups: All groups.
        step: Positions of those that this step is about.
        lr: The learning rate.
        reference: Log-probabilities under the reference, if the loss needs them.
        old: Those under the policy that sampled; None if that is the present one.
        seed: Dropout draws from it.

    Raises:
        BackEndError: A loss or a gradient is not finite; the step is not made.
    """
    for group in solver.optimizer.param_groups:
        group["lr"] = lr
    with _named_randomness(solver.accelerator, seed):
        means = _accumulated(solver, groups, step, reference, old)
    # Not accelerate's, which compares lists of sharded weights by their values.
    norm = nn.utils.clip_grad_norm_(solver.parameters, solver.config.clip or math.inf)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    row = {**means, "grad_norm": _short(float(whole)), "lr": _short(lr)}
    if not all(map(math.isfinite, row.values())):
        solver.optimizer.zero_grad()
        raise BackEndError(
            f"loss {row['loss']} and a gradient of norm {row['grad_norm']} at learning rate "
            f"{lr:g}; lower learner.lr in a new run or divide huge rewards, and if it is the first "
            "step, see whether the start answers sensibly"
        )
    solver.optimizer.step()
    solver.optimizer.zero_grad()
    return row


def _accumulated(
    solver: Solver,
    groups: Sequence[TokenGroup],
    step: Index,
    reference: Table | None,
    old: Table | None,
) -> dict[str, float]:
    """Add the gradient of a step's loss to the weights' gradients; the means of its log."""
    objective, accelerator = solver.objective, solver.accelerator
    solver.scorer.train()
    size = objective.size([groups[i] for i in step])
    active = step
    if objective.skips_ties:
        active = np.array([i for i in step if any(groups[i].signals)], dtype=np.intp)
    members = max(1, sum(objective.members(groups[i]) for i in active))
    passes = _passes(solver, groups, active, step[:1])
    sums: dict[str, Tensor] = {}
    for number, (one, counts) in enumerate(passes, 1):
        # Gradients of sharded weights are exchanged at once, for whole ones may be too much.
        exchanges = solver.is_sharded or number == len(passes)
        with nullcontext() if exchanges else accelerator.no_sync(solver.scorer):
            rows = _rows(solver, groups, one, reference, old)
            losses, metrics = objective.loss(rows)
            # Gradients are averaged over processes, so each counts as many times as there are.
            accelerator.backward(losses.sum() * (counts / size * accelerator.num_processes))
        parts = {"loss": losses.detach().sum() / size}
        parts |= {name: values.sum() / members for name, values in metrics.items()}
        for name, part in parts.items():
            sums[name] = sums.get(name, torch.zeros_like(part)) + counts * part
    totals = _summed(torch.stack(list(sums.values())), accelerator).tolist()
    return {name: _short(total) for name, total in zip(sums, totals, strict=True)}


def _passes(
    solver: Solver, groups: Sequence[TokenGroup], index: Index, spare: Index
) -> list[tuple[Pass, float]]:
    """This process's share of groups[index] in passes, each with a weight of 1.

    A process that has nothing, or of a sharded model fewer passes than another, takes part in the
    exchange with the `spare` groups and a weight of 0.
    """
    passes = micro_batches(groups, _shard(index, solver.accelerator), solver.costs)
    least = min(1, len(spare))
    if solver.is_sharded:
        number = torch.tensor([len(passes)], device=solver.accelerator.device)
        # Its declared result is that of any nest of tensors.
        numbers: Any = solver.accelerator.gather(number)
        least = int(numbers.max())
    idle = Pass(spare, shared=False)
    return [(one, 1.0) for one in passes] + [(idle, 0.0)] * (least - len(passes))


def _rows(
    solver: Solver,
    groups: Sequence[TokenGroup],
    one: Pass,
    reference: Table | None,
    old: Table | None,
) -> Rows:
    """What the loss reads of a micro-batch, padded to [B, R]."""
    inputs = _inputs(solver, groups, one)
    new_N = solver.scorer(inputs)
    mask_B_R = inputs.mask_B_R

    def padded(flat_N: Tensor) -> Tensor:
        blank_B_R = flat_N.new_zeros(mask_B_R.shape)
        return blank_B_R.masked_scatter(mask_B_R, flat_N)

    def looked_up(table: Table) -> Tensor:
        return padded(table.of(one.index).to(new_N))

    new_B_R = padded(new_N)
    logps = TokenLogps(
        new=new_B_R,
        old=new_B_R.detach() if old is None else looked_up(old),
        ref=None if reference is None else looked_up(reference),
        mask=mask_B_R.to(new_N.dtype),
    )
    signals = [signal for i in one.index for signal in groups[i].signals]
    return Rows(
        logps, torch.tensor(signals, dtype=new_N.dtype, device=new_N.device), inputs.group_B
    )


def _inputs(solver: Solver, groups: Sequence[TokenGroup], one: Pass) -> Inputs:
    batch = padded_batch([groups[i] for i in one.index], shared=one.shared)
    return on_device(batch, solver.accelerator.device)


def _shard(index: Index, accelerator: Accelerator) -> Index:
    return index[accelerator.process_index :: accelerator.num_processes]


def _summed(values: Tensor, accelerator: Accelerator) -> Tensor:
    # Its declared result is that of any nest of tensors.
    summed: Any = accelerator.reduce(values, reduction="sum")
    return cast(Tensor, summed)


@contextmanager
def _named_randomness(accelerator: Accelerator, seed: int) -> Iterator[None]:
    """Dropout draws from a named seed; the generators outside are left as they were."""
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seeds.child(seed, "torch", accelerator.process_index))
        yield


def _short(value: float) -> float:
    """Six digits: more would only say in which order a machine adds."""
    return float(f"{value:.6g}")
