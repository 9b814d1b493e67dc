"""A group is the rewards of one prompt: what every formula on groups shares.

A missing reward is left out of its group, and a group with fewer than two rewards has no score. The
responses of a prompt are exchangeable, so a formula sees its group in rising order: permuting the
responses changes no bit of a score, and groups with the same rewards tie exactly.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from eva.protocols import Floats_P, Floats_P_G

BLOCK = 4096
"""Prompts scored at a time, so that a block of usual width stays in the cache of one core."""

Formula: TypeAlias = Callable[[Floats_P_G], Floats_P]
"""Scores complete groups: finite rewards of shape [P, n], n >= 2, each row in rising order."""


def checked(rewards_P_G: Floats_P_G) -> Floats_P_G:
    """The rewards as float64, after a look at their shape and range.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Raises:
        ValueError: The shape is not [P, G] with G >= 2, or a reward is infinite.

    Examples:
        >>> checked(np.array([[1, 2]]))
        array([[1., 2.]])
    """
    rewards_P_G = np.asarray(rewards_P_G, dtype=np.float64)
    if rewards_P_G.ndim != 2 or rewards_P_G.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {list(rewards_P_G.shape)}; expected [P, G] with G >= 2 responses"
        )
    infinite_P_G = np.isinf(rewards_P_G)
    if infinite_P_G.any():
        raise ValueError(
            f"prompt {int(infinite_P_G.argmax()) // rewards_P_G.shape[1]} has an infinite reward; "
            "expected finite numbers, or NaN where a reward is missing"
        )
    return rewards_P_G


def over_groups(formula: Formula, rewards_P_G: Floats_P_G) -> Floats_P:
    """`formula` of every group, missing rewards left out.

    Our choice; the paper does not specify what happens to a missing reward.

    Args:
        formula: Scores complete groups whose rewards stand in rising order.
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P]; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> over_groups(lambda r_P_n: r_P_n[:, -1], np.array([[3.0, 5.0], [np.nan, 1.0]]))
        array([ 5., nan])
    """
    rewards_P_G = checked(rewards_P_G)
    info_P = np.empty(len(rewards_P_G))
    try:
        with np.errstate(over="raise"):
            for start in range(0, len(info_P), BLOCK):
                block = slice(start, start + BLOCK)
                info_P[block] = _of_block(formula, np.sort(rewards_P_G[block], axis=1))
    except FloatingPointError as error:
        raise ValueError(
            "the formula exceeds the largest float; divide all rewards by one constant"
        ) from error
    return info_P


def _of_block(formula: Formula, sorted_P_G: Floats_P_G) -> Floats_P:
    """`formula` of sorted groups; sorting has put missing rewards last."""
    if not np.isnan(sorted_P_G[:, -1]).any():
        return formula(sorted_P_G)
    n_P = np.count_nonzero(~np.isnan(sorted_P_G), axis=1)
    info_P = np.full(len(sorted_P_G), np.nan)
    for n in range(2, sorted_P_G.shape[1] + 1):
        info_P[n_P == n] = formula(sorted_P_G[n_P == n, :n])
    return info_P
