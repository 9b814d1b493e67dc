"""Losses of the solver's update on pairs: pure functions of log-probabilities, one per equation.

Symbols: x a prompt, y+ the chosen and y- the rejected response, |y| its length in tokens, pi the
policy that learns, ref the reference policy, log-ratio the logarithm of pi(y|x) / ref(y|x). Sizes:
B pairs. Lengths are taken as 1 where a response is empty, whose log-probability is 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


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
    """log ref(y+|x); carries no gradient. Zeros where the loss needs no reference."""
    ref_rejected: Tensor
    """log ref(y-|x); carries no gradient. Zeros where the loss needs no reference."""
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


def ipo(logps: PairLogps, *, beta: float, length_normalised: bool = True) -> Tensor:
    """The IPO loss of each pair, of shape [B].

    ``loss = (h - 1 / (2 beta))^2`` with ``h = log-ratio(y+) - log-ratio(y-)``, each log-ratio
    divided by its own length if they are normalised.

    Source: Azar et al. 2023, A General Theoretical Paradigm to Understand Learning from Human
    Preferences, arXiv 2310.12036, equation 17, where beta is called tau. There h is made of sums;
    the field's trainers divide by the length, which the authors have confirmed to them.

    Args:
        logps: Log-probabilities of B pairs.
        beta: Sets the target of h, 1 / (2 beta); above 0.
        length_normalised: Whether log-ratios are per token.
    """
    chosen_B, rejected_B = implicit_rewards(logps, beta=1.0)
    if length_normalised:
        chosen_B = per_token(chosen_B, logps.chosen_tokens)
        rejected_B = per_token(rejected_B, logps.rejected_tokens)
    return (chosen_B - rejected_B - 1.0 / (2.0 * beta)) ** 2


def sppo(logps: PairLogps, chosen_win_B: Tensor, rejected_win_B: Tensor, *, beta: float) -> Tensor:
    """The SPPO loss of each pair, of shape [B].

    ``loss = (log-ratio(y+) - (P+ - 1/2) / beta)^2 + (log-ratio(y-) - (P- - 1/2) / beta)^2``

    Unlike in DPO it is not the difference that counts: each response is pushed to a target of its
    own, up if it wins more often than not, else down. So both of a pair may rise, or both fall, and
    one that goes beyond its target is pulled back.

    Source: Wu et al. 2024, Self-Play Preference Optimization for Language Model Alignment, arXiv
    2405.00675, section 4, algorithm 1, where 1 / beta is called eta. The square of one response is
    the paper's; that the loss of a pair is the sum of two, without a factor of 1/2, is the field's
    habit: hard labels, P+ = 1 and P- = 0, give what trainers call "sppo_hard".

    Args:
        logps: Log-probabilities of B pairs.
        chosen_win_B: P+, the probability that y+ beats a response of the policy, in [0, 1].
        rejected_win_B: P-, the same of y-.
        beta: 1 / eta; sets the target of a log-ratio; above 0.
    """
    chosen_B, rejected_B = implicit_rewards(logps, beta=1.0)
    chosen_error_B = chosen_B - (chosen_win_B - 0.5) / beta
    rejected_error_B = rejected_B - (rejected_win_B - 0.5) / beta
    return chosen_error_B**2 + rejected_error_B**2


def simpo(logps: PairLogps, *, beta: float, gamma: float) -> Tensor:
    """The SimPO loss of each pair, of shape [B]; needs no reference.

    ``loss = -log sigmoid(beta (log pi(y+|x) / |y+| - log pi(y-|x) / |y-|) - gamma)``

    Source: Meng et al. 2024, SimPO: Simple Preference Optimization with a Reference-Free Reward,
    arXiv 2405.14734, equation 6.

    Args:
        logps: Log-probabilities of B pairs.
        beta: Scale of the log-probability per token, above 0.
        gamma: Target margin, in units of beta times a log-probability per token, at least 0.
    """
    chosen_B = per_token(logps.chosen, logps.chosen_tokens)
    rejected_B = per_token(logps.rejected, logps.rejected_tokens)
    return -logsigmoid(beta * (chosen_B - rejected_B) - gamma)


def orpo(logps: PairLogps, *, beta: float) -> Tensor:
    """The ORPO loss of each pair, of shape [B]; needs no reference.

    ``loss = -log p+ - beta log sigmoid(log(odds(p+) / odds(p-)))`` with ``odds(p) = p / (1 - p)``
    and ``log p = log pi(y|x) / |y|``, so that p is the geometric mean over the tokens.

    Source: Hong et al. 2024, ORPO: Monolithic Preference Optimization without Reference Model,
    arXiv 2403.07691, equations 3 to 7, where beta is called lambda. Our choice: the first term
    counts the response alone, not the prompt; and a p closer to 1 than the resolution of its
    floating type is held there, without a gradient, for its odds would be infinite.

    Args:
        logps: Log-probabilities of B pairs.
        beta: Weight of the odds-ratio term, at least 0.
    """
    chosen_B = _log_odds(per_token(logps.chosen, logps.chosen_tokens))
    rejected_B = _log_odds(per_token(logps.rejected, logps.rejected_tokens))
    return nll(logps) - beta * logsigmoid(chosen_B - rejected_B)


def nll(logps: PairLogps) -> Tensor:
    """The negative log-likelihood of each chosen response per token, of shape [B].

    ``loss = -log pi(y+|x) / |y+|``

    A term to be added to another loss: it keeps the chosen response likely.

    Source: Pang et al. 2024, Iterative Reasoning Preference Optimization, arXiv 2404.19733,
    equation 1, its first term.
    """
    return -per_token(logps.chosen, logps.chosen_tokens)


def per_token(logp_B: Tensor, tokens_B: Tensor) -> Tensor:
    """The mean log-probability of a response's tokens, of shape [B]; 0 for an empty one."""
    return logp_B / tokens_B.clamp(min=1)


def _log_odds(logp_B: Tensor) -> Tensor:
    """``log(p / (1 - p)) = log p - log(1 - exp(log p))``, for log p <= 0.

    The last term loses no digits in one of two forms, on either side of p = 1/2: Maechler 2012,
    Accurately Computing log(1 - exp(-|a|)),
    https://cran.r-project.org/web/packages/Rmpfr/vignettes/log1mexp-note.pdf.
    """
    logp_B = logp_B.clamp(max=-torch.finfo(logp_B.dtype).eps)
    log_rest_B = torch.where(
        logp_B > -math.log(2.0), (-logp_B.expm1()).log(), (-logp_B.exp()).log1p()
    )
    return logp_B - log_rest_B
