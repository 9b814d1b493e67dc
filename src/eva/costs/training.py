"""What an update holds on its device, in bytes: eva's own learners, from the shape of the model.

Weights, gradients and moments are in float32; matrix products may be in bfloat16. What a pass keeps
for its backward pass was measured on small models of each family (tests/costs); the numbers of a
whole update are right to within a fifth or so, and kernels that fuse need less.
"""

from eva.costs.launch import Launch
from eva.costs.shapes import Shape
from eva.parts.learners import Update

LOGITS = 2**28
"""Logits in float32 that the learner makes, and keeps, at once (`eva.learn.logprobs`)."""


def number_size(dtype: str, device: str) -> float:
    """Bytes of a weight: "auto" is bfloat16 on CUDA and float32 on a CPU."""
    return 4.0 if dtype == "float32" or (dtype == "auto" and device == "cpu") else 2.0


def passing(shape: Shape, length: float) -> float:
    """Bytes for each token in a layer of a forward pass that keeps nothing, in bfloat16.

    ``8 H + 6 I``, and the attention's matrix where it is made whole.
    """
    matrix = 8 * shape.heads * length if shape.family.is_eager else 0.0
    return 8 * shape.hidden + 6 * shape.intermediate + matrix


def kept(shape: Shape, length: float) -> float:
    """Bytes for each token that a layer keeps for the backward pass, in bfloat16.

    ``(10 + 8 norms) H + 8 I + 4 (Q + K)``: hidden states and what is normalised are in float32. The
    heads' norms add ``6 (Q + K)``; attention that makes its matrix whole takes ``8 Q + 8 heads L``
    instead of ``4 (Q + K)``. Measured: tests/costs/test_activations.py.
    """
    family = shape.family
    ends = shape.queries + shape.keys
    attention = 4.0 * ends + (6.0 * ends if family.has_head_norms else 0.0)
    if family.is_eager:
        attention = 8 * shape.queries + 8 * shape.heads * length
    return (10 + 8 * family.norms) * shape.hidden + 8 * shape.intermediate + attention


def is_narrow(part: Update, device: str) -> bool:
    """Whether the matrix products are in bfloat16."""
    return number_size(part.dtype, device) == 2.0


def state(part: Update, shape: Shape, launch: Launch) -> dict[str, float]:
    """Weights, gradients and moments of one process.

    float32: 4 bytes for a weight, 4 for its gradient, 8 for the moments of AdamW or 4 for that of
    RMSprop. With adapters the weights are frozen and only the adapters have the rest.
    """
    shards = launch.processes if launch.is_sharded else 1
    moments = 8.0 if part.optimizer == "adamw" else 4.0
    trained = shape.adapter(part.lora.rank) if part.lora else shape.parameters
    whole = shape.parameters + (trained if part.lora else 0)
    parts = {
        "weights, float32": 4.0 * whole / shards,
        "gradients, float32": 4.0 * trained / shards,
        f"moments of {part.optimizer}": moments * trained / shards,
    }
    if launch.processes > 1 and not launch.is_sharded:
        parts["gradients being exchanged"] = 4.0 * trained
    return parts


def gathered(part: Update, shape: Shape, launch: Launch) -> dict[str, float]:
    """What is gathered of shards: two layers, and the tables, each with its gradient."""
    if not launch.is_sharded or launch.processes == 1:
        return {}
    tables = shape.table * (1 if shape.is_tied else 2)
    times = 4.0 if part.lora else 8.0
    return {"layers and tables, gathered": times * (2 * shape.layer + tables)}


def one_pass(
    part: Update, shape: Shape, tokens: float, length: float, device: str
) -> dict[str, float]:
    """What one pass over `tokens` padded tokens, in rows of `length`, needs at its peak."""
    narrow = is_narrow(part, device)
    layer = kept(shape, length) * (1.0 if narrow else 2.0)
    if part.gradient_checkpointing:
        activations = tokens * (4.0 * shape.hidden * shape.layers + layer)
    else:
        activations = tokens * layer * shape.layers
    made = min(tokens * shape.vocab, LOGITS)
    parts = {
        f"activations of {int(tokens)} tokens": activations,
        "logits being made and kept": 4.0 * made * 4,
    }
    if part.lora is None:
        parts["gradient of the output head"] = 4.0 * shape.table
    if narrow and not part.gradient_checkpointing:
        parts["bfloat16 copies of the weights"] = 2.0 * shape.parameters
    return parts


def roots(part: Update, shape: Shape, launch: Launch) -> dict[str, float]:
    """What an optimiser step makes when no pass is under way: RMSprop the roots of its moments."""
    if part.optimizer == "adamw":
        return {}
    trained = shape.adapter(part.lora.rank) if part.lora else shape.parameters
    shards = launch.processes if launch.is_sharded else 1
    return {"roots of the moments in a step": 4.0 * trained / shards}
