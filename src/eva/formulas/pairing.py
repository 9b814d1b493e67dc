"""Which responses of a prompt make a preference pair, and how often each one wins.

A missing reward (NaN) is never best, worst or beaten. A group with fewer than two rewards, or whose
rewards all tie, makes no pair.
"""

from collections.abc import Callable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from eva.formulas.groups import BLOCK, checked
from eva.formulas.informativeness import a_min
from eva.protocols import Floats, Floats_P, Floats_P_G


def best_and_worst(
    rewards_P_G: Floats_P_G,
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats_P]:
    r"""Positions of the best and the worst response of each prompt, and the margin between them.

    ::

        best = min argmax_j r_j,    worst = min argmin_j r_j,    margin = r_best - r_worst

    Source: Ziyu Ye et al., "Scalable Reinforcement Post-Training Beyond Static Human Prompts:
    Evolving Alignment via Asymmetric Self-Play", https://arxiv.org/abs/2411.00062, the solver's
    preference pairs. That the first of tied responses is taken is our choice.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        best_P and worst_P, shape [P], in [0, G); they mean nothing where the margin is NaN.
        margin_P, shape [P], in reward units, >= 0; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a margin beyond the largest float.

    Examples:
        >>> best_P, worst_P, margin_P = best_and_worst(np.array([[2.0, 5.0, np.nan, 1.0, 5.0]]))
        >>> int(best_P[0]), int(worst_P[0]), float(margin_P[0])
        (1, 3, 4.0)
    """
    rewards_P_G = checked(rewards_P_G)
    missing_P_G = np.isnan(rewards_P_G)
    best_P = np.where(missing_P_G, -np.inf, rewards_P_G).argmax(axis=1)
    worst_P = np.where(missing_P_G, np.inf, rewards_P_G).argmin(axis=1)
    return best_P, worst_P, a_min(rewards_P_G)


def is_usable(margin_P: Floats_P) -> NDArray[np.bool_]:
    r"""Whether a prompt makes a pair.

    ::

        margin > 0

    Our choice; the paper does not specify it. A tie teaches nothing about which is better.

    Args:
        margin_P: Shape [P], in reward units, >= 0 or NaN.

    Returns:
        Shape [P]; False for a tie, and for a margin that is missing.

    Examples:
        >>> is_usable(np.array([0.5, 0.0, np.nan]))
        array([ True, False, False])
    """
    return margin_P > 0


def ties(margin_P: Floats_P) -> int:
    r"""How many prompts make no pair because all their rewards are equal.

    ::

        #{i: margin_i = 0}

    Our choice; the paper does not specify it. Missing margins are no ties.

    Args:
        margin_P: Shape [P], in reward units, >= 0 or NaN.

    Returns:
        A count, in [0, P].

    Examples:
        >>> ties(np.array([0.5, 0.0, np.nan]))
        1
    """
    return int(np.count_nonzero(margin_P == 0))


def win_probabilities(rewards_P_G: Floats_P_G) -> Floats_P_G:
    r"""The share of the other responses of its prompt that a response beats; a tie counts half.

    ::

        w_j = 1/(n-1) sum_{k != j} ([r_j > r_k] + 1/2 [r_j = r_k])

    Source: the win rate that Yue Wu et al., "Self-Play Preference Optimization for Language Model
    Alignment", https://arxiv.org/abs/2405.00675, estimate for each response, with the reward as the
    judge. Leaving the response itself out is our choice.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P, G], in [0, 1], of mean 1/2 over the n rewards of a prompt. NaN where the reward is
        missing, and in a whole group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape or an infinite reward.

    Examples:
        >>> win_probabilities(np.array([[1.0, 3.0, 1.0]]))  # (0 + 1/2)/2, (1 + 1)/2, (1/2 + 0)/2
        array([[0.25, 1.  , 0.25]])
    """
    return _mean_over_others(lambda r_G_P, r_P: (r_G_P > r_P) + 0.5 * (r_G_P == r_P), rewards_P_G)


def bradley_terry_probabilities(rewards_P_G: Floats_P_G, *, scale: float = 1.0) -> Floats_P_G:
    r"""The probability that a response beats another one of its prompt, if rewards are logits.

    ::

        w_j = 1/(n-1) sum_{k != j} sigmoid((r_j - r_k) / scale)

    Source: Ralph Allan Bradley and Milton E. Terry, "Rank Analysis of Incomplete Block Designs: I.
    The Method of Paired Comparisons", https://doi.org/10.2307/2334029, is the model that rewards
    are usually trained by; Yue Wu et al., "Self-Play Preference Optimization for Language Model
    Alignment", https://arxiv.org/abs/2405.00675, average such probabilities over the responses of a
    prompt. Leaving the response itself out, and the scale, are our choice.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.
        scale: What a difference of rewards is divided by, in reward units, finite, above 0. Towards
            0 the probabilities become those of `win_probabilities`.

    Returns:
        Shape [P, G], in [0, 1], of mean 1/2 over the n rewards of a prompt. NaN where the reward is
        missing, and in a whole group with fewer than two rewards. Permuting the responses changes
        no bit.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a scale out of range.

    Examples:
        >>> odds_of_three = np.log([[3.0, 1.0]])  # sigmoid(log 3) = 3 / (3 + 1)
        >>> bradley_terry_probabilities(odds_of_three)
        array([[0.75, 0.25]])
    """
    if not 0.0 < scale < np.inf:
        raise ValueError(f"scale is {scale}; expected a finite number above 0, in reward units")

    def sigmoid(r_G_P: Floats, r_P: Floats) -> Floats:
        """As a tangent, which overflows nowhere; a quotient that does so is as good as infinite."""
        with np.errstate(over="ignore"):
            x_G_P: Floats = (0.5 * r_G_P - 0.5 * r_P) / scale
        sigmoid_G_P: Floats = 0.5 + 0.5 * np.tanh(x_G_P)
        return np.where(np.isnan(r_P), 0.0, sigmoid_G_P)

    return _mean_over_others(sigmoid, rewards_P_G)


def mean_wins(p_P_G_G: Floats) -> Floats_P_G:
    r"""The mean probability of a response to beat the others of its prompt, both orders averaged.

    ::

        w_j = mean over k != j of (p_jk + 1 - p_kj) / 2

    Our choice; the paper does not specify it. A judge of pairs favours the place in which it reads
    a response; asked in both orders, it favours both responses alike.

    Args:
        p_P_G_G: Shape [P, G, G], in [0, 1]: P(y_j beats y_k) where y_j is read first, NaN where
            missing. The diagonal is not read.

    Returns:
        Shape [P, G], in [0, 1]. A rival counts only where both orders are known; NaN where there is
        no such rival.

    Examples:
        >>> mean_wins(np.array([[[0.0, 0.9], [0.3, 0.0]]]))  # (0.9 + 1 - 0.3)/2, (0.3 + 1 - 0.9)/2
        array([[0.8, 0.2]])
    """
    both_P_G_G = (p_P_G_G + 1.0 - np.swapaxes(p_P_G_G, 1, 2)) / 2.0
    known_P_G_G = ~np.isnan(both_P_G_G) & ~np.eye(both_P_G_G.shape[1], dtype=np.bool_)
    rivals_P_G = known_P_G_G.sum(axis=2)
    won_P_G = np.where(known_P_G_G, both_P_G_G, 0.0).sum(axis=2)
    return np.asarray(won_P_G / np.where(rivals_P_G > 0, rivals_P_G, np.nan), dtype=np.float64)


def _mean_over_others(duel: Callable[[Floats, Floats], Floats], rewards_P_G: Floats_P_G) -> Floats:
    """The mean points of a response in its duels with the others of its prompt.

    Args:
        duel: The points, in [0, 1], of rewards [G, P] against one rival of each prompt, [P]: 1/2
            against an equal, 0 against a missing one.
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.
    """
    rewards_P_G = checked(rewards_P_G)
    w_P_G = np.empty_like(rewards_P_G)
    for start in range(0, len(w_P_G), BLOCK):
        block = slice(start, start + BLOCK)
        w_P_G[block] = _of_block(duel, np.ascontiguousarray(rewards_P_G[block].T)).T
    return w_P_G


def _of_block(duel: Callable[[Floats, Floats], Floats], r_G_P: Floats) -> Floats:
    """Shape [G, P], so that duels run along the prompts; rivals in rising order, as in `groups`."""
    there_G_P = ~np.isnan(r_G_P)
    others_P = np.count_nonzero(there_G_P, axis=0) - 1
    points_G_P = reduce(np.add, [duel(r_G_P, r_P) for r_P in np.sort(r_G_P, axis=0)]) - 0.5
    w_G_P: Floats = np.where(there_G_P, points_G_P, np.nan)  # the 0.5: it ties itself
    return w_G_P / np.where(others_P > 0, others_P, np.nan)
