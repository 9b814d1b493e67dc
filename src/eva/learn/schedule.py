"""The plan of an update: which pairs each optimiser step takes, and its learning rate.

Pure functions of the recipe and a seed.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from eva import seeds
from eva.config import DpoLearner

Index: TypeAlias = NDArray[np.intp]
"""Positions of pairs in a list of pairs, shape [number of pairs]; one may come twice."""


def planned_steps(pairs: int, config: DpoLearner, seed: int) -> list[Index]:
    """The pairs of each optimiser step.

    The pairs are passed through again and again, each pass k in a fresh order drawn by
    ``seeds.rng(seed, "pass", k)``, and the stream is cut into steps of `batch` pairs. A step may
    cross from one pass into the next, so that no pass ends in a small and noisy step; only the
    very last step may be smaller, if `epochs` say so.

    Args:
        pairs: How many pairs there are; none makes no steps.
        config: `steps` or `epochs`, and `batch`.
        seed: The seed of this update.
    """
    if pairs == 0:
        return []
    if config.steps is not None:
        visits = config.steps * config.batch
    else:
        assert config.epochs is not None, "the recipe gives either steps or epochs"
        visits = max(1, round(config.epochs * pairs))
    passes = math.ceil(visits / pairs)
    orders = [seeds.rng(seed, "pass", k).permutation(pairs) for k in range(passes)]
    stream = np.concatenate(orders)[:visits]
    return [stream[i : i + config.batch] for i in range(0, visits, config.batch)]


def learning_rate(step: int, steps: int, config: DpoLearner) -> float:
    """The learning rate of one optimiser step.

    With S steps and W of warm-up, step k = 0 ... S-1 takes ``lr (k + 1) / W`` for k < W, and
    ``lr (floor + (1 - floor) f(t))``, ``t = (k - W) / (S - W)``, for k >= W, where f falls from 1
    to 0: ``1`` (constant), ``1 - t`` (linear) or ``(1 + cos(pi t)) / 2`` (cosine). So no step is
    lost to a rate of zero. Our choice in the details; the paper does not specify them.

    Args:
        step: k, counted from 0.
        steps: S.
        config: `lr`, `warmup`, `schedule` and `floor`.
    """
    share = config.warmup < 1.0
    warmup = min(steps, math.ceil(config.warmup * steps) if share else round(config.warmup))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    t = (step - warmup) / (steps - warmup)
    falls = {"constant": 1.0, "linear": 1.0 - t, "cosine": (1.0 + math.cos(math.pi * t)) / 2.0}
    return config.lr * (config.floor + (1.0 - config.floor) * falls[config.schedule])
