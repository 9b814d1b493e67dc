"""From lessons to preference pairs: what the learner trains on and what `eva export` writes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva.formulas.pairing import best_and_worst, is_usable, ties
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


def best_worst_pairs(lessons: Sequence[Rollout]) -> Pairs:
    """The best against the worst response of each group; ties and missing rewards are counted.

    The formula and its source are those of `eva.formulas.pairing.best_and_worst`.
    """
    if not lessons:
        return Pairs(pairs=[], ties=0, missing=0)
    most = max(2, *(len(rollout.rewards) for rollout in lessons))
    rewards_P_G = np.full((len(lessons), most), np.nan)
    for row_G, rollout in zip(rewards_P_G, lessons, strict=True):
        row_G[: len(rollout.rewards)] = [np.nan if r is None else r for r in rollout.rewards]
    best_P, worst_P, margin_P = best_and_worst(rewards_P_G)
    pairs = [
        Pair(
            prompt=lessons[p].prompt,
            chosen=lessons[p].responses[best_P[p]],
            rejected=lessons[p].responses[worst_P[p]],
            margin=float(margin_P[p]),
        )
        for p in np.flatnonzero(is_usable(margin_P)).tolist()
    ]
    return Pairs(pairs, ties=ties(margin_P), missing=int(np.isnan(margin_P).sum()))
