"""How many evolved prompts a mini-batch of an online run holds, and how many parents make them.

The paper trains online in phases (warm-up, mix-up, bootstrap) and gives no numbers: Ziyu Ye et al.,
"Scalable Reinforcement Post-Training Beyond Static Human Prompts: Evolving Alignment via Asymmetric
Self-Play", https://arxiv.org/abs/2411.00062.
"""

import math


def evolved_share(
    step: int, steps: int, *, warmup: float, mixup: float, evolved: float, bootstrap: float
) -> float:
    r"""Share of evolved prompts in mini-batch `step` of a run of `steps` mini-batches.

    ::

        W = round(warmup * steps),    M = round((warmup + mixup) * steps) - W

        share(s) = 0                          for s < W            warm-up
                   evolved * (s - W + 1) / M  for W <= s < W + M   mix-up
                   bootstrap                  for s >= W + M       bootstrap

    so that the last mini-batch of the mix-up holds the share `evolved`. Our choice; the paper does
    not specify it.

    Args:
        step: s, from 0; mini-batches beyond the planned ones belong to the bootstrap phase.
        steps: Mini-batches of the whole run.
        warmup: Length of the warm-up, as a share of `steps`.
        mixup: Length of the mix-up, as a share of `steps`.
        evolved: The share at the end of the mix-up, in [0, 1].
        bootstrap: The share afterwards, in [0, 1].

    Returns:
        The share, in [0, 1].

    Examples:
        >>> lengths = {"warmup": 0.25, "mixup": 0.5, "evolved": 0.8, "bootstrap": 1.0}
        >>> [evolved_share(s, 8, **lengths) for s in range(8)]
        [0.0, 0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0, 1.0]
    """
    W = round(warmup * steps)
    M = round((warmup + mixup) * steps) - W
    if step < W:
        return 0.0
    if step < W + M:
        return evolved * (step - W + 1) / M
    return bootstrap


def evolved_of(share: float, batch: int) -> int:
    """Evolved prompts in a mini-batch of `batch` prompts: round(share * batch).

    Examples:
        >>> [evolved_of(share, 8) for share in (0.0, 0.05, 0.8, 1.0)]  # 0, 0.4, 6.4, 8
        [0, 0, 6, 8]
    """
    return round(share * batch)


def parents_of(keep: float, evolved: int) -> int:
    """Parents drawn for so many evolved prompts: ceil(keep * evolved).

    Our choice; with 4 children each, the paper's keep of 1/4 fills the share, as offline.

    Examples:
        >>> [parents_of(0.25, evolved) for evolved in (0, 1, 8)]  # 0, 0.25, 2
        [0, 1, 2]
        >>> parents_of(0.07, 100)  # 7, although 0.07 * 100 is 7.000000000000001
        7
    """
    return math.ceil(round(keep * evolved, 9))
