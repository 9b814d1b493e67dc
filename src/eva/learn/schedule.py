"""The plan of an update: which pairs each optimiser step takes, and its learning rate.

Pure functions of the recipe and a seed.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from eva import seeds
from eva.parts.learners import Offline, Update

Index: TypeAlias = NDArray[np.intp]
"""Positions of pairs in a list of pairs, shape [number of pairs]; one may come twice."""


def planned_steps(tokens: Sequence[int], config: Offline, seed: int) -> list[Index]:
    """The pairs of each optimiser step.

    The pairs are passed through again and again, each pass k in a fresh order drawn by
    ``seeds.rng(seed, "pass", k)``, and the stream is cut into steps of `batch` pairs, or of as many
    as hold `batch_tokens` tokens. A step may cross from one pass into the next, so that no pass
    ends in a small and noisy step; only the very last step may be smaller, if `epochs` say so.

    Args:
        tokens: Tokens of each pair, prompt and responses; no pairs make no steps.
        config: `steps` or `epochs`, and `batch` or `batch_tokens`.
        seed: The seed of this update.
    """
    if not tokens:
        return []
    steps: list[list[int]] = []
    filled = config.batch  # of the last step: pairs, or tokens
    for i in _visits(len(tokens), config, seed):
        size = tokens[i] if config.batch_tokens else 1
        if not steps or filled + size > (config.batch_tokens or config.batch):
            if len(steps) == config.steps:
                break
            steps.append([])
            filled = 0
        steps[-1].append(i)
        filled += size
    return [np.asarray(step, dtype=np.intp) for step in steps]


def _visits(pairs: int, config: Offline, seed: int) -> Iterator[int]:
    """The pairs in the order of their visits, `epochs` passes or without end."""
    left = math.inf if config.epochs is None else max(1, round(config.epochs * pairs))
    k = 0
    while left > 0:
        order = seeds.rng(seed, "pass", k).permutation(pairs).tolist()
        yield from order[: int(min(left, pairs))]
        left -= pairs
        k += 1


def learning_rate(step: int, steps: int, config: Update) -> float:
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
