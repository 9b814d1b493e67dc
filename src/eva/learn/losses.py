"""Losses of the solver's update: pure functions of log-probabilities, one per equation.

Symbols: x a prompt, y+ the chosen and y- the rejected response, pi the policy that learns, ref the
reference policy. Sizes: B pairs or rows, R response tokens (padded), V the vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

CHUNK = 2**24
"""Logits that are held in float32 at once by `token_logprobs`: 64 MiB."""


@dataclass(frozen=True)
class PairLogps:
    """All that a loss on pairs may need, for B pairs; each a tensor of shape [B].

    Log-probabilities are natural, summed over the tokens of the response, at temperature 1.
    """

    chosen: Tensor
    """log pi(y+|x)."""
    rejected: Tensor
    """log pi(y-|x)."""
    ref_chosen: Tensor
    """log ref(y+|x); carries no gradient."""
    ref_rejected: Tensor
    """log ref(y-|x); carries no gradient."""
    chosen_tokens: Tensor
    """|y+|, in tokens; for losses that divide by the length."""
    rejected_tokens: Tensor
    """|y-|, in tokens."""


def implicit_rewards(logps: PairLogps, *, beta: float) -> tuple[Tensor, Tensor]:
    """The rewards that the policy itself implies, of chosen and of rejected; two of shape [B].

    ``r(x, y) = beta (log pi(y|x) - log ref(y|x))``, up to a term of x alone.

    Source: Rafailov et al. 2023, Direct Preference Optimization, arXiv 2305.18290, section 4,
    equation 5.
    """
    return beta * (logps.chosen - logps.ref_chosen), beta * (logps.rejected - logps.ref_rejected)


def dpo(logps: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """The DPO loss of each pair, of shape [B].

    ``loss = -(1 - eps) log sigmoid(h) - eps log sigmoid(-h)`` with ``h = r(x, y+) - r(x, y-)``, the
    difference of the implicit rewards, and eps the label smoothing.

    Sources: Rafailov et al. 2023, Direct Preference Optimization, arXiv 2305.18290, equation 7
    (eps = 0); Mitchell 2023, A note on DPO with noisy preferences and relationship to IPO,
    https://ericmitchell.ai/cdpo.pdf, equation 3 (conservative DPO, eps > 0).

    Args:
        logps: Log-probabilities of B pairs.
        beta: Strength of the pull towards the reference, above 0.
        label_smoothing: Probability eps that a preference is wrong, in [0, 0.5).
    """
    chosen_B, rejected_B = implicit_rewards(logps, beta=beta)
    h_B = chosen_B - rejected_B
    loss_B = -(1.0 - label_smoothing) * logsigmoid(h_B)
    if label_smoothing > 0.0:
        loss_B = loss_B - label_smoothing * logsigmoid(-h_B)
    return loss_B


def token_logprobs(logits_B_R_V: Tensor, tokens_B_R: Tensor, mask_B_R: Tensor) -> Tensor:
    """The log-probability of each row's response, in float32 or wider; shape [B].

    ``log pi(y|x) = sum_t (logits[t, y_t] - logsumexp_v logits[t, v])``. The vocabulary may have
    256k entries, so no float32 array of shape [B, R, V] is ever made: forward and backward go
    through `CHUNK` logits at a time, and the gradient has the type of the logits.

    Args:
        logits_B_R_V: The logits that predict each response token; any floating type.
        tokens_B_R: The response tokens; any valid id where the mask is 0.
        mask_B_R: 1 for a token of the response, 0 for padding.
    """
    # torch gives Function.apply no types.
    logprobs_N: Tensor = _Picked.apply(  # type: ignore[no-untyped-call]
        logits_B_R_V.flatten(0, 1), tokens_B_R.flatten()
    )
    return (logprobs_N.view(tokens_B_R.shape) * mask_B_R).sum(1)


class _Picked(torch.autograd.Function):
    """Log-softmax of N rows at one entry each, keeping the logits and N numbers for backward."""

    @staticmethod
    def forward(ctx: Any, logits_N_V: Tensor, tokens_N: Tensor) -> Tensor:
        wide = torch.promote_types(logits_N_V.dtype, torch.float32)
        parts = torch.split(logits_N_V, _rows(logits_N_V))
        lse_N = torch.cat([part.to(wide).logsumexp(1) for part in parts])
        ctx.save_for_backward(logits_N_V, tokens_N, lse_N)
        return logits_N_V.gather(1, tokens_N[:, None])[:, 0].to(wide) - lse_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """``d log p[y] / d logits[v] = 1[v = y] - p[v]``."""
        logits_N_V, tokens_N, lse_N = ctx.saved_tensors
        grad_N_V = torch.empty_like(logits_N_V)
        rows = _rows(logits_N_V)
        arrays = (logits_N_V, tokens_N, lse_N, grads[0], grad_N_V)
        parts = (torch.split(array, rows) for array in arrays)
        for logits, tokens, lse, grad, out in zip(*parts, strict=True):
            wide = (logits.to(lse.dtype) - lse[:, None]).exp_().mul_(-grad[:, None])
            out.copy_(wide.scatter_add_(1, tokens[:, None], grad[:, None]))
        return grad_N_V, None


def _rows(logits_N_V: Tensor) -> int:
    return max(1, CHUNK // logits_N_V.shape[1])
