"""Losses of online reinforcement: pure functions of token log-probabilities and advantages.

Symbols: x a prompt, y a response that the policy old has sampled, pi the policy that learns, ref
the reference policy, A the advantage of y, ratio the importance ratio pi / old. Sizes: B responses,
R tokens of a response (padded).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""Log importance ratios are held here, without a gradient: beyond float32's exp at 88, an infinite
ratio would turn an advantage of 0 into NaN. Our choice; a sound update stays far below."""


@dataclass(frozen=True)
class TokenLogps:
    """Log-probabilities of the tokens of B responses; each a tensor of shape [B, R].

    Natural, at temperature 1. At padding they may be anything finite: it counts for nothing.
    """

    new: Tensor
    """log pi(y_t|x, y_<t), with its gradient."""
    old: Tensor
    """The same under the policy that sampled; carries no gradient."""
    ref: Tensor | None
    """The same under the reference; carries no gradient. None where the loss needs no reference."""
    mask: Tensor
    """1 for a token of the response, 0 for padding."""


def rloo(logps: TokenLogps, advantages_B: Tensor, *, epsilon: float | None) -> Tensor:
    """The REINFORCE loss of each response, clipped as in PPO; shape [B].

    ``loss = -min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)`` with
    ``ratio = pi(y|x) / old(y|x) = exp(sum_t log pi(y_t) - log old(y_t))``

    Where pi is old, as on fresh samples, its gradient is that of ``-A log pi(y|x)``: REINFORCE.

    Sources: Ahmadian et al. 2024, Back to Basics: Revisiting REINFORCE Style Optimization for
    Learning from Human Feedback in LLMs, arXiv 2402.14740 (the response as a single action);
    Schulman et al. 2017, Proximal Policy Optimization Algorithms, arXiv 1707.06347, equation 7 (the
    clip).

    Args:
        logps: Log-probabilities of B responses; `ref` is not read.
        advantages_B: A, finite; carries no gradient.
        epsilon: Bound on the ratio's distance from 1; None for none.
    """
    log_ratio_B = (_without_padding(logps.new, logps) - _without_padding(logps.old, logps)).sum(1)
    return _surrogate(log_ratio_B, advantages_B, low=epsilon, high=epsilon)


def grpo(
    logps: TokenLogps,
    advantages_B: Tensor,
    *,
    epsilon: float | None,
    epsilon_high: float | None,
    kl: float,
) -> Tensor:
    """The GRPO loss of each token, 0 at padding; shape [B, R].

    ``loss_t = -min(ratio_t A, clip(ratio_t, 1 - eps, 1 + eps_high) A) + kl k3_t`` with
    ``ratio_t = pi(y_t|x, y_<t) / old(y_t|x, y_<t)``. How tokens are averaged is another choice.
    The penalty is the paper's; the field's trainers may multiply it by the ratio (DeepSeek-V3.2,
    arXiv 2512.02556), since on average the slope of k3 is that of KL(ref || pi).

    Sources: Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, equations 3 and 4; Yu et al. 2025,
    DAPO: An Open-Source LLM Reinforcement Learning System at Scale, arXiv 2503.14476, section 3.1
    (eps_high).

    Args:
        logps: Log-probabilities of B responses; `ref` is needed if kl is above 0.
        advantages_B: A, finite; carries no gradient. Every token has that of its response.
        epsilon: Bound on a ratio below 1, and above it without `epsilon_high`; None for none.
        epsilon_high: Bound on a ratio above 1; None for `epsilon`.
        kl: Weight of the penalty, at least 0.
    """
    new_B_R = _without_padding(logps.new, logps)
    log_ratio_B_R = new_B_R - _without_padding(logps.old, logps)
    high = epsilon if epsilon_high is None else epsilon_high
    loss_B_R = _surrogate(log_ratio_B_R, advantages_B[:, None], low=epsilon, high=high)
    if kl > 0.0:
        assert logps.ref is not None, "a penalty on the distance to a reference needs one"
        loss_B_R = loss_B_R + kl * kl_k3(new_B_R, _without_padding(logps.ref, logps))
    return _without_padding(loss_B_R, logps)


def kl_k1(logps_B_R: Tensor, ref_B_R: Tensor, mask_B_R: Tensor) -> Tensor:
    """The estimate k1 of KL(pi || ref) from each response, summed over its tokens; shape [B].

    ``k1 = sum_t log pi(y_t) - log ref(y_t)``, for y sampled from pi. Of mean KL; one response's may
    be negative. RLOO takes it inside the reward, ``r - kl k1``, so that it moves the advantage and
    carries no gradient itself.

    Source: Schulman 2020, Approximating KL Divergence, http://joschu.net/blog/kl-approx.html.

    Args:
        logps_B_R: Log-probabilities under the policy that sampled, finite.
        ref_B_R: The same under the reference.
        mask_B_R: 1 for a token of the response, 0 for padding.
    """
    return (logps_B_R - ref_B_R).masked_fill(mask_B_R == 0, 0.0).sum(1)


def kl_k3(new_B_R: Tensor, ref_B_R: Tensor) -> Tensor:
    """The estimate k3 of KL(pi || ref) from each token, never negative; shape [B, R].

    ``k3 = ref / pi - log(ref / pi) - 1 = exp(d) - d - 1`` with ``d = log ref(y_t) - log pi(y_t)``,
    for y_t sampled from pi. Of mean KL, and of less variance than k1 where the two are close.

    Source: Schulman 2020, Approximating KL Divergence, http://joschu.net/blog/kl-approx.html.

    Args:
        new_B_R: Log-probabilities under pi.
        ref_B_R: The same under the reference.
    """
    d_B_R = ref_B_R - new_B_R
    return d_B_R.expm1() - d_B_R


def _without_padding(values_B_R: Tensor, logps: TokenLogps) -> Tensor:
    """0 at padding, value and gradient: 0 times what overflows there would be NaN."""
    return values_B_R.masked_fill(logps.mask == 0, 0.0)


def _surrogate(
    log_ratio: Tensor, advantages: Tensor, *, low: float | None, high: float | None
) -> Tensor:
    """``-min(ratio A, clip(ratio, 1 - low, 1 + high) A)``, the surrogate loss of PPO."""
    ratio = log_ratio.clamp(max=LOG_RATIO_BOUND).exp()
    above = ratio if low is None else ratio.clamp(min=1.0 - low)
    clipped = above if high is None else above.clamp(max=1.0 + high)
    return -torch.minimum(ratio * advantages, clipped * advantages)
