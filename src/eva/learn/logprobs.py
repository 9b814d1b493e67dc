"""Log-probabilities of tokens from hidden states, without all logits in memory at once.

A vocabulary may have 256k entries, so the logits of a micro-batch are its largest array by far.
They are made for a part of the vocabulary at a time, all tokens at once, so that the weights of the
head are read once in a pass; and they are made again in the backward pass where keeping them would
cost too much. Sizes: N tokens, H numbers in a hidden state, V the vocabulary, C entries of a part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 2**22, "cuda": 2**28}
"""Logits in float32 that are made at once, by device: 16 MiB stay in a processor's cache, and a GPU
needs large matrices to be busy. Fitted on the CPU (docs/bench-learn.md)."""
KEPT = {"cpu": 2**24, "cuda": 2**28}
"""Logits that are kept for the backward pass at most; beyond that they are made again, for a third
more arithmetic in the output head."""


@dataclass(frozen=True)
class Head:
    """The last layer of a language model: ``logits = cap tanh((h W^T + b) / cap)``."""

    weight_V_H: Tensor
    """W."""
    bias_V: Tensor | None = None
    """b, if there is one."""
    cap: float | None = None
    """The bound of a model that caps its logits (Gemma 2); None for none."""
    dtype: torch.dtype | None = None
    """Of the matrix products; None is that of W."""

    def raw(self, hidden_N_H: Tensor) -> Tensor:
        """``h W^T + b`` in float32 or wider, shape [N, V]."""
        dtype = self.dtype or self.weight_V_H.dtype
        logits_N_V = hidden_N_H.to(dtype) @ self.weight_V_H.to(dtype).T
        wide = logits_N_V.to(torch.promote_types(dtype, torch.float32))
        return wide if self.bias_V is None else wide + self.bias_V

    def logits(self, hidden_N_H: Tensor) -> Tensor:
        """The logits in float32 or wider, shape [N, V]."""
        raw_N_V = self.raw(hidden_N_H)
        return raw_N_V if self.cap is None else self.cap * torch.tanh(raw_N_V / self.cap)


def token_logprobs(hidden_N_H: Tensor, tokens_N: Tensor, head: Head) -> Tensor:
    """The log-probability of each token after its hidden state, in float32 or wider; shape [N].

    ``log p(y_t) = logits[t, y_t] - log sum_v exp logits[t, v]``. Forward and backward make at most
    `CHUNK` logits at a time and keep at most `KEPT`.

    Args:
        hidden_N_H: The last hidden states, any floating type.
        tokens_N: The tokens that follow them.
        head: The output layer.
    """
    # torch gives Function.apply no types.
    logprobs_N: Tensor = _Picked.apply(  # type: ignore[no-untyped-call]
        hidden_N_H, head.weight_V_H, head.bias_V, tokens_N, head
    )
    return logprobs_N


class _Picked(torch.autograd.Function):
    """Log-softmax of N rows at one entry each, in parts of the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_N_H: Tensor,
        weight_V_H: Tensor,
        bias_V: Tensor | None,
        tokens_N: Tensor,
        head: Head,
    ) -> Tensor:
        device = hidden_N_H.device.type
        ctx.head = head
        ctx.size = max(1, CHUNK.get(device, CHUNK["cuda"]) // max(1, len(tokens_N)))
        keeps = len(tokens_N) * len(weight_V_H) <= KEPT.get(device, KEPT["cuda"])
        picked, lse, kept = [], [], []
        for first, part in _parts(head, ctx.size):
            logits_N_C = part.logits(hidden_N_H)
            lse.append(logits_N_C.logsumexp(1))
            column_N, is_here_N = _place(tokens_N, first, logits_N_C.shape[1])
            picked.append(logits_N_C.gather(1, column_N[:, None])[:, 0].where(is_here_N, 0.0))
            if keeps:
                kept.append(logits_N_C)
        lse_N = torch.stack(lse).logsumexp(0)
        ctx.save_for_backward(hidden_N_H, weight_V_H, bias_V, tokens_N, lse_N, *kept)
        return torch.stack(picked).sum(0) - lse_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """``d log p[y] / d logits[v] = 1[v = y] - p[v]``, and from there to h, W and b."""
        hidden_N_H, weight_V_H, bias_V, tokens_N, lse_N, *kept = ctx.saved_tensors
        head: Head = ctx.head
        dtype = head.dtype or weight_V_H.dtype
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_N_H = torch.zeros_like(hidden_N_H, dtype=lse_N.dtype) if needs_hidden else None
        grad_V_H = torch.empty_like(weight_V_H) if needs_weight else None
        grad_V = torch.empty_like(bias_V) if needs_bias else None
        for number, (first, part) in enumerate(_parts(head, ctx.size)):
            logits_N_C = kept[number] if kept else part.logits(hidden_N_H)
            slope = None if head.cap is None else 1.0 - (logits_N_C / head.cap) ** 2
            d_N_C = (logits_N_C - lse_N[:, None]).exp_().mul_(-grads[0][:, None])
            column_N, is_here_N = _place(tokens_N, first, d_N_C.shape[1])
            d_N_C.scatter_add_(1, column_N[:, None], grads[0].where(is_here_N, 0.0)[:, None])
            d_N_C = (d_N_C if slope is None else d_N_C.mul_(slope)).to(dtype)
            entries = slice(first, first + d_N_C.shape[1])
            if grad_V is not None:
                grad_V[entries] = d_N_C.sum(0)
            if grad_N_H is not None:
                _add_product(grad_N_H, d_N_C, part.weight_V_H.to(dtype))
            if grad_V_H is not None:
                _put_product(grad_V_H[entries], d_N_C.T, hidden_N_H.to(dtype))
        grad_hidden = None if grad_N_H is None else grad_N_H.to(hidden_N_H.dtype)
        return grad_hidden, grad_V_H, grad_V, None, None


def _parts(head: Head, size: int) -> Iterator[tuple[int, Head]]:
    """The head cut along its vocabulary: the first entry of each part, and the part."""
    for first in range(0, len(head.weight_V_H), size):
        entries = slice(first, first + size)
        bias_C = None if head.bias_V is None else head.bias_V[entries]
        yield first, replace(head, weight_V_H=head.weight_V_H[entries], bias_V=bias_C)


def _place(tokens_N: Tensor, first: int, size: int) -> tuple[Tensor, Tensor]:
    """The column of each token in a part of the vocabulary, and whether it is there at all."""
    column_N = tokens_N - first
    inside_N = column_N.clamp(0, size - 1)
    return inside_N, inside_N == column_N


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left right``, summed in the type of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += (left @ right).to(total.dtype)


def _put_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """``out = left right``, without a copy where the types agree."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)
