"""From lessons to preference pairs: what the learner trains on and what `eva export` writes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva.formulas.pairing import best_and_worst, is_usable, ties
from eva.protocols import Floats_P_G
from eva.records import Pair, Rollout


@dataclass(frozen=True)
class Pairs:
    """The preference pairs of some rollouts, and what made none."""

    pairs: list[Pair]
    """One pair, best against worst, for each group that has one; in the order of the rollouts."""
    ties: int
    """Groups whose rewards are all equal."""
    missing: int
    """Groups with fewer than two rewards."""
    rewards_P_G: Floats_P_G
    """The rewards of all groups; NaN where missing."""
    places: list[tuple[int, int, int]]
    """Of each pair: its group, and the positions of chosen and rejected in it."""


def best_worst_pairs(lessons: Sequence[Rollout]) -> Pairs:
    """The best against the worst response of each group; ties and missing rewards are counted.

    The formula and its source are those of `eva.formulas.pairing.best_and_worst`.
    """
    most = max((2, *(len(rollout.rewards) for rollout in lessons)))
    rewards_P_G = np.full((len(lessons), most), np.nan)
    for row_G, rollout in zip(rewards_P_G, lessons, strict=True):
        row_G[: len(rollout.rewards)] = [np.nan if r is None else r for r in rollout.rewards]
    best_P, worst_P, margin_P = best_and_worst(rewards_P_G)
    places = [
        (p, int(best_P[p]), int(worst_P[p])) for p in np.flatnonzero(is_usable(margin_P)).tolist()
    ]
    pairs = [
        Pair(
            prompt=lessons[p].prompt,
            chosen=lessons[p].responses[best],
            rejected=lessons[p].responses[worst],
            margin=float(margin_P[p]),
        )
        for p, best, worst in places
    ]
    missing = int(np.isnan(margin_P).sum())
    return Pairs(pairs, ties(margin_P), missing, rewards_P_G, places)
