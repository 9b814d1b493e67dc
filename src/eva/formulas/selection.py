"""Which K of P prompts are drawn, given how informative each is.

Every selector takes info [P] and K, and an `rng` for all of its randomness. It returns distinct
positions in rising order, so that their order tells nothing and files keep the order of the pool.
A prompt without a score (NaN) is never drawn. If K exceeds the number of prompts that can be drawn,
all of those are returned, and no others. The same seed gives the same draw on every machine: ties
are broken by the generator, never by the layout of a sort.

"The paper", below: Ziyu Ye et al., "Scalable Reinforcement Post-Training Beyond Static Human
Prompts: Evolving Alignment via Asymmetric Self-Play", https://arxiv.org/abs/2411.00062.
"""

import numpy as np

from eva.protocols import Floats_P, Index_K

BINS = 10
"""Quantile bins of `stratified`. Default: the authors' released code."""
LEAST = 1e-300
"""A weight so small that its prompt is drawn after all others, yet large enough to divide by."""


def min_max_weights(info_P: Floats_P) -> Floats_P:
    r"""Probabilities proportional to info above the least one.

    ::

        w_i = (info_i - min info) / (max info - min info),    p_i = w_i / sum_j w_j

    Source: the paper's weighted sampling, scaled as in the released code. The least informative
    prompt has weight 0, one outlier sets the scale, and only the order and the ratios of
    differences matter: any map a info + b with a > 0 gives the same weights.

    Args:
        info_P: Shape [P], finite; NaN where there is no score.

    Returns:
        Shape [P], in [0, 1], of sum 1; 0 where there is no score. Equal scores give equal weights.
        All 0 if no prompt has a score.

    Raises:
        ValueError: Wrong shape, an infinite score, or scores further apart than the largest float.

    Examples:
        >>> min_max_weights(np.array([1.0, 2.0, 4.0, np.nan]))  # 0/3, 1/3, 3/3, over 4/3
        array([0.  , 0.25, 0.75, 0.  ])
    """
    info_P = _checked(info_P)
    scored_P = ~np.isnan(info_P)
    if not scored_P.any():
        return np.zeros(len(info_P))
    low, high = float(np.nanmin(info_P)), float(np.nanmax(info_P))
    if np.isinf(high - low):
        raise ValueError(f"scores reach from {low} to {high}, more than the largest float apart")
    if high == low:
        weights_P = scored_P.astype(np.float64)
    else:
        weights_P = np.where(scored_P, (info_P - low) / (high - low), 0.0)
    p_P: Floats_P = weights_P / weights_P.sum()
    return p_P


def proportional(
    info_P: Floats_P, K: int, rng: np.random.Generator, *, floor: float = 0.0
) -> Index_K:
    r"""K prompts, drawn one after another in proportion to their min-max weights.

    ::

        P(next is i | drawn so far: D) = q_i / sum_{j not in D} q_j
        q = (1 - floor) p + floor / S,    p the min-max weights,  S the number of scored prompts

    Source: the paper's weighted sampling without replacement; `floor` is our choice, and 0 is the
    paper's. The K least of E_i / q_i, with E_i independent standard exponentials, have exactly this
    distribution: Pavlos Efraimidis and Paul Spirakis, "Weighted random sampling with a reservoir",
    https://doi.org/10.1016/j.ipl.2005.11.003.

    Args:
        info_P: Shape [P], finite; NaN where there is no score.
        K: How many to draw, >= 1.
        rng: Draws one exponential for each prompt of positive weight.
        floor: Share of the probability spread evenly over all scored prompts, in [0, 1].

    Returns:
        Shape [K], positions in rising order. With floor 0 the least informative prompts have weight
        0 and are never drawn (unless all tie), so fewer than K are returned if fewer than K have a
        positive weight.

    Raises:
        ValueError: Wrong shape, an infinite score, K < 1, or a floor outside [0, 1].

    Examples:
        >>> proportional(np.array([1.0, 2.0, 4.0, np.nan]), 2, np.random.default_rng(1))
        array([1, 2])
    """
    _check_K(K)
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"floor is {floor}; expected a share of the probability, in [0, 1]")
    p_P = min_max_weights(info_P)
    if floor == 0.0:
        return _drawn(p_P, K, rng)
    scored_P = ~np.isnan(info_P)
    S = int(scored_P.sum())
    q_P = np.where(scored_P, (1 - floor) * p_P + floor / max(S, 1), 0.0)
    return _drawn(q_P, K, rng)


def rank(info_P: Floats_P, K: int, rng: np.random.Generator) -> Index_K:
    r"""K prompts, drawn one after another in proportion to their rank.

    ::

        P(next is i | drawn so far: D) = rank_i / sum_{j not in D} rank_j

    The least informative of S scored prompts has rank 1, the most informative rank S, and equal
    scores share the mean of their ranks. Our choice; the paper does not specify it (it is named
    after the rank prioritisation of Minqi Jiang et al., "Prioritized Level Replay",
    https://arxiv.org/abs/2010.03934). Outliers do not matter, and every scored prompt can be drawn.

    Args:
        info_P: Shape [P], finite; NaN where there is no score.
        K: How many to draw, >= 1.
        rng: Draws one exponential for each scored prompt.

    Returns:
        Shape [K], positions in rising order; all scored prompts if K exceeds their number.

    Raises:
        ValueError: Wrong shape, an infinite score, or K < 1.

    Examples:
        >>> rank(np.array([1.0, 2.0, 4.0, np.nan]), 2, np.random.default_rng(1))
        array([0, 1])
    """
    _check_K(K)
    info_P = _checked(info_P)
    scored_S = np.flatnonzero(~np.isnan(info_P))
    return scored_S[_drawn(mean_ranks(info_P[scored_S]), K, rng)]


def mean_ranks(info_S: Floats_P) -> Floats_P:
    r"""Ranks from 1 (least) to S (greatest); equal scores share the mean of their ranks.

    ::

        rank_i = #{j: info_j < info_i} + (#{j: info_j = info_i} + 1) / 2

    Source: the usual mid-rank of rank statistics.

    Args:
        info_S: Shape [S], finite, without NaN.

    Returns:
        Shape [S], in [1, S], multiples of 1/2, so exact; their sum is S (S + 1) / 2.

    Examples:
        >>> mean_ranks(np.array([5.0, 1.0, 5.0, 3.0]))
        array([3.5, 1. , 3.5, 2. ])
    """
    _, which_S, sizes = np.unique(info_S, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_S: Floats_P = mid_ranks[which_S]
    return rank_S


def greedy(info_P: Floats_P, K: int, rng: np.random.Generator) -> Index_K:
    r"""The K most informative prompts.

    ::

        {i: info_i > t} and as many of {i: info_i = t}, drawn uniformly, as complete K
        t the K-th greatest score

    Source: the paper, sampling ablation ("eva-greedy"). How ties are broken is our choice.

    Args:
        info_P: Shape [P], finite; NaN where there is no score.
        K: How many to take, >= 1.
        rng: Breaks ties.

    Returns:
        Shape [K], positions in rising order; all scored prompts if K exceeds their number.

    Raises:
        ValueError: Wrong shape, an infinite score, or K < 1.

    Examples:
        >>> greedy(np.array([1.0, 9.0, 4.0, np.nan]), 2, np.random.default_rng(1))
        array([1, 2])
    """
    _check_K(K)
    info_P = _checked(info_P)
    S = len(info_P) - np.count_nonzero(np.isnan(info_P))
    if K >= S:
        return np.flatnonzero(~np.isnan(info_P))
    t = np.partition(info_P, S - K)[S - K]  # NaN sorts last
    chosen_P = info_P > t
    tied = np.flatnonzero(info_P == t)
    chosen_P[rng.choice(tied, K - np.count_nonzero(chosen_P), replace=False, shuffle=False)] = True
    return np.flatnonzero(chosen_P)


def stratified(info_P: Floats_P, K: int, rng: np.random.Generator) -> Index_K:
    r"""Equal shares from ten quantile bins; inside a bin, in proportion to min-max weights.

    ::

        B = min(10, K) bins of S/B scored prompts each, cut from the prompts in order of info
        K/B of each bin, drawn one after another:  P(next is i) = p_i / (sum of p left in its bin)

    Source: the released code of the paper (10 quantile bins, a weighted quarter of each). The rest
    is our choice, made so that every bin holds enough prompts and exactly K are returned: equal
    scores are put in random order before the cut, so a bin's edge may run through them; where S or
    K is no multiple of B, the most informative bins have one prompt, and draw one prompt, more; and
    prompts of weight 0 are drawn only after all others of their bin.

    Args:
        info_P: Shape [P], finite; NaN where there is no score.
        K: How many to draw, >= 1.
        rng: Orders ties and draws one exponential for each scored prompt.

    Returns:
        Shape [K], positions in rising order; all scored prompts if K exceeds their number.

    Raises:
        ValueError: Wrong shape, an infinite score, or K < 1.

    Examples:
        >>> stratified(np.array([1.0, 2.0, 8.0, 9.0]), 2, np.random.default_rng(1))
        array([1, 3])
    """
    _check_K(K)
    weights_P = np.maximum(min_max_weights(info_P), LEAST)
    order_S = rng.permutation(np.flatnonzero(~np.isnan(info_P)))
    order_S = order_S[np.argsort(-info_P[order_S], kind="stable")]
    if len(order_S) <= K:
        return np.sort(order_S)
    B = min(BINS, K)
    bins = np.array_split(order_S, B)
    shares = [len(part) for part in np.array_split(np.arange(K), B)]
    drawn = [i[_drawn(weights_P[i], k, rng)] for i, k in zip(bins, shares, strict=True)]
    return np.sort(np.concatenate(drawn))


def uniform(info_P: Floats_P, K: int, rng: np.random.Generator) -> Index_K:
    r"""K of the scored prompts, each set of K as likely as any other.

    ::

        P(next is i | drawn so far: D) = 1 / (S - |D|)

    Source: the paper, metric ablation.

    Args:
        info_P: Shape [P], finite; NaN where there is no score, which is all that is looked at.
        K: How many to draw, >= 1.
        rng: Draws one exponential for each scored prompt.

    Returns:
        Shape [K], positions in rising order; all scored prompts if K exceeds their number.

    Raises:
        ValueError: Wrong shape, an infinite score, or K < 1.

    Examples:
        >>> uniform(np.array([1.0, 2.0, 4.0, np.nan]), 2, np.random.default_rng(1))
        array([0, 1])
    """
    _check_K(K)
    return _drawn((~np.isnan(_checked(info_P))).astype(np.float64), K, rng)


def _drawn(weights_P: Floats_P, K: int, rng: np.random.Generator) -> Index_K:
    """Min(K, number of positive weights) positions by successive sampling, in rising order."""
    positive_S = np.flatnonzero(weights_P)
    if len(positive_S) <= K:
        return positive_S
    with np.errstate(over="ignore"):  # a weight below 1e-307 may give an infinite key: drawn last
        keys_S = rng.standard_exponential(len(positive_S)) / weights_P[positive_S]
    chosen_S = np.zeros(len(positive_S), dtype=np.bool_)
    chosen_S[np.argpartition(keys_S, K - 1)[:K]] = True
    return positive_S[chosen_S]


def _checked(info_P: Floats_P) -> Floats_P:
    info_P = np.asarray(info_P, dtype=np.float64)
    if info_P.ndim != 1:
        raise ValueError(f"info has shape {list(info_P.shape)}; expected [P], a score per prompt")
    infinite_P = np.isinf(info_P)
    if infinite_P.any():
        raise ValueError(
            f"prompt {int(infinite_P.argmax())} has an infinite score; expected finite numbers, or "
            "NaN where there is no score"
        )
    return info_P


def _check_K(K: int) -> None:
    if K < 1:
        raise ValueError(f"K is {K}; expected to draw at least one prompt")
