"""How sure a measured number is: standard errors, paired differences, intervals, tests, win rates.

Measurements are finite: what is missing is counted by the caller and left out before. One
measurement has no standard error: NaN, never 0.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva.protocols import Floats

ROOM = 2**18
"""Measurements that the bootstrap draws at once: a few MiB, however many resamples there are."""


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    """In the unit of the measurements."""
    error: float
    """Standard error of the mean, in the same unit, >= 0; NaN where it cannot be had."""


def estimate(x_N: Floats) -> Estimate:
    r"""The mean of independent measurements and its standard error.

    ::

        m = (1/N) sum_i x_i,    error = sqrt(1/(N (N-1)) sum_i (x_i - m)^2)

    Source: Evan Miller, "Adding Error Bars to Evals: A Statistical Approach to Language Model
    Evaluations", https://arxiv.org/abs/2411.00640.

    Args:
        x_N: Shape [N], N >= 1, finite.

    Returns:
        Mean and error, in the unit of x; the error is NaN if N = 1.

    Raises:
        ValueError: Wrong shape, nothing measured, or a number that is not finite.

    Examples:
        >>> estimate(np.array([1.0, 3.0]))  # sqrt((1 + 1) / 2)
        Estimate(mean=2.0, error=1.0)
    """
    return clustered(x_N, np.arange(np.size(x_N)))


def clustered(x_N: Floats, cluster_N: NDArray[np.generic]) -> Estimate:
    r"""The mean of measurements that come in clusters, and its standard error.

    ::

        m = (1/N) sum_i x_i,    d_c = sum_{i in c} (x_i - m)
        error = sqrt(C/(C-1) sum_c d_c^2) / N

    Several responses to one prompt are not independent; the clusters, here prompts, are.

    Source: Evan Miller, "Adding Error Bars to Evals", https://arxiv.org/abs/2411.00640, clustered
    standard errors. The factor C/(C-1) is our choice: with it, clusters of one measurement each
    give the plain standard error, and clusters of equal size that of the cluster means.

    Args:
        x_N: Shape [N], N >= 1, finite.
        cluster_N: Shape [N], the label of each measurement's cluster: numbers or texts.

    Returns:
        Mean and error, in the unit of x; the error is NaN if there is one cluster.

    Raises:
        ValueError: Wrong shapes, nothing measured, or a number that is not finite.

    Examples:
        >>> clustered(np.array([1.0, 1.0, 3.0, 3.0]), np.array([7, 7, 8, 8]))
        Estimate(mean=2.0, error=1.0)
    """
    x_N = _checked(x_N)
    if np.shape(cluster_N) != x_N.shape:
        raise ValueError(f"{len(x_N)} measurements, but clusters of shape {np.shape(cluster_N)}")
    m = _mean(x_N)
    labels_C, which_N = np.unique(cluster_N, return_inverse=True)
    C, N = len(labels_C), len(x_N)
    if C == 1:
        return Estimate(m, float("nan"))
    d_C = np.bincount(which_N, weights=x_N - m) / N
    scale = float(np.abs(d_C).max()) or 1.0  # squares of scaled deviations do not overflow
    return Estimate(m, scale * float(np.sqrt(C / (C - 1) * np.sum((d_C / scale) ** 2))))


def paired_difference(a_N: Floats, b_N: Floats) -> Estimate:
    r"""The mean of a - b over pairs, e.g. the same prompts or the same seeds, with its error.

    ::

        estimate(a_i - b_i)

    Source: Evan Miller, "Adding Error Bars to Evals", https://arxiv.org/abs/2411.00640, paired
    differences: what both share, such as how hard a prompt is, drops out of the error.

    Args:
        a_N: Shape [N], N >= 1, finite.
        b_N: Shape [N], finite, in the same order and unit.

    Returns:
        Mean and error, in the unit of a; the error is NaN if N = 1.

    Raises:
        ValueError: Wrong shapes, nothing measured, or a number that is not finite.

    Examples:
        >>> paired_difference(np.array([2.0, 5.0]), np.array([1.0, 2.0]))
        Estimate(mean=2.0, error=1.0)
    """
    a_N, b_N = _paired(a_N, b_N)
    return estimate(a_N - b_N)


def bootstrap_interval(
    x_N: Floats, rng: np.random.Generator, *, level: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    r"""A percentile bootstrap interval of a mean, e.g. of paired differences a - b.

    ::

        m*_b = mean of N measurements drawn from x with replacement,  b = 1 ... draws
        (quantile of m* at (1 - level)/2,  quantile of m* at (1 + level)/2)

    Source: Bradley Efron and Robert Tibshirani, "An Introduction to the Bootstrap" (1993), section
    13.3. The percentile interval and not BCa: for a mean they differ little, and this one needs no
    correction that a reader has to trust. Both are too short for few measurements: of normal ones,
    95 % covers about 85 % at N = 5, 90 % at N = 10 and 92 % at N = 20.

    Args:
        x_N: Shape [N], N >= 1, finite.
        rng: Draws the resamples.
        level: Share of resampled means inside, in (0, 1).
        draws: Number of resamples, >= 1.

    Returns:
        Low and high end, in the unit of x; both NaN if N = 1.

    Raises:
        ValueError: Wrong shape, nothing measured, a number that is not finite, a level outside
            (0, 1) or draws < 1.

    Examples:
        >>> x_N = np.array([1.0, 2.0, 3.0, 4.0])
        >>> low, high = bootstrap_interval(x_N, np.random.default_rng(1))
        >>> low, high
        (1.5, 3.5)
    """
    x_N = _checked(x_N)
    if not 0.0 < level < 1.0 or draws < 1:
        raise ValueError(f"level {level}, draws {draws}; expected a level in (0, 1), draws >= 1")
    N = len(x_N)
    if N == 1:
        return float("nan"), float("nan")
    rows = max(1, ROOM // N)
    sizes = [min(rows, draws - begin) for begin in range(0, draws, rows)]
    means = np.concatenate([_means(x_N[rng.integers(N, size=(size, N))]) for size in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(found: Estimate, value: float, *, df: int) -> float:
    r"""Student's two-sided p: the chance of a t as far from 0, or farther, if the mean is `value`.

    ::

        t = (m - value) / error,    theta = arctan(|t| / sqrt(df))

        p = 1 - 2/pi (theta + sin(theta) (cos(theta) + 2/3 cos^3(theta) + ...
                + (2 4 ... (df-3)) / (3 5 ... (df-2)) cos^(df-2)(theta)))          df odd
        p = 1 - sin(theta) (1 + 1/2 cos^2(theta) + ...
                + (1 3 ... (df-3)) / (2 4 ... (df-2)) cos^(df-2)(theta))           df even

    Source: Milton Abramowitz and Irene Stegun, "Handbook of Mathematical Functions" (1964),
    equations 26.7.3 and 26.7.4. The sums are finite and so exact; 1 - ... leaves an error of about
    1e-15, so a p below 1e-14 says no more than that.

    Args:
        found: A mean and its standard error, e.g. of paired differences.
        value: The mean that is tested, in the same unit.
        df: Degrees of freedom, >= 1: of N measurements or pairs, N - 1.

    Returns:
        p in [0, 1]; NaN if the error is NaN. Without any spread it is 0, or 1 if the mean is
        `value` exactly.

    Raises:
        ValueError: df < 1.

    Examples:
        >>> round(p_value(Estimate(1.0, 1.0), 0.0, df=1), 9)  # theta = pi/4
        0.5
    """
    if df < 1:
        raise ValueError(f"df is {df}; expected at least 1, one less than there are measurements")
    if math.isnan(found.error):
        return float("nan")
    theta = math.atan2(abs(found.mean - value), found.error * math.sqrt(df))
    sin, cos = math.sin(theta), math.cos(theta)
    odd = df % 2
    j = np.arange(1, df // 2, dtype=np.float64)
    factors = (2 * j - 1 + odd) / (2 * j + odd) * cos**2
    total = float(1 + np.cumprod(factors).sum()) if df > 1 else 0.0
    inside = 2 / math.pi * (theta + sin * cos * total) if odd else sin * total
    return min(1.0, max(0.0, 1 - inside))


def holm(p_N: Floats) -> Floats:
    r"""Each p corrected for being one of many: Holm's step-down correction.

    ::

        p_(1) <= p_(2) <= ... <= p_(M)
        corrected_(k) = max over j <= k of min(1, (M - j + 1) p_(j))

    If all whose corrected p lies below 0.05 are called real, the chance that any of them is not
    real is at most 5 %, however the tests depend on each other.

    Source: Sture Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
    Journal of Statistics 6 (1979), 65-70.

    Args:
        p_N: Shape [N], each in [0, 1]; NaN where there is no test, which counts for nothing.

    Returns:
        Shape [N], each in [p, 1], in the order of p; NaN stays.

    Raises:
        ValueError: Wrong shape, or a p outside [0, 1].

    Examples:
        >>> holm(np.array([0.5, 0.125])).tolist()  # 2 * 0.125, then 1 * 0.5
        [0.5, 0.25]
    """
    p_N = np.asarray(p_N, dtype=np.float64)
    if p_N.ndim != 1 or ((p_N < 0) | (p_N > 1)).any():
        raise ValueError(f"p is {p_N.tolist()}; expected a list of numbers in [0, 1]")
    corrected_N = np.full(p_N.shape, np.nan)
    order_M = np.argsort(p_N, kind="stable")[: np.count_nonzero(~np.isnan(p_N))]
    times_M = np.arange(len(order_M), 0, -1)
    corrected_N[order_M] = np.minimum(1.0, np.maximum.accumulate(times_M * p_N[order_M]))
    return corrected_N


def win_rate(a_N: Floats, b_N: Floats) -> Estimate:
    r"""How often a beats b over pairs, a tie counted half, with its standard error.

    ::

        estimate([a_i > b_i] + 1/2 [a_i = b_i])

    Source: the usual convention of preference benchmarks. For several pairs per prompt, give the
    same outcomes to `clustered`.

    Args:
        a_N: Shape [N], N >= 1, rewards, finite.
        b_N: Shape [N], rewards of the rivals, finite, in the same order and unit.

    Returns:
        Mean, in [0, 1], and error; the error is NaN if N = 1.

    Raises:
        ValueError: Wrong shapes, nothing measured, or a number that is not finite.

    Examples:
        >>> win_rate(np.array([2.0, 5.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0, 1.0])).mean
        0.75
    """
    a_N, b_N = _paired(a_N, b_N)
    return estimate((a_N > b_N) + 0.5 * (a_N == b_N))


def _mean(x_N: Floats) -> float:
    """Mean as first measurement plus mean excess: exact where all are equal."""
    return float(x_N[0] + np.mean(x_N - x_N[0]))


def _means(x_B_N: Floats) -> Floats:
    """`_mean` of each row."""
    first_B_1 = x_B_N[:, :1]
    means_B: Floats = first_B_1[:, 0] + np.mean(x_B_N - first_B_1, axis=1)
    return means_B


def _checked(x_N: Floats) -> Floats:
    x_N = np.asarray(x_N, dtype=np.float64)
    if x_N.ndim != 1 or len(x_N) == 0:
        raise ValueError(f"measurements have shape {list(x_N.shape)}; expected [N] with N >= 1")
    if not np.isfinite(x_N).all():
        raise ValueError(
            f"measurement {int(np.isfinite(x_N).argmin())} is not finite; leave out what is "
            "missing, and say how many were left out"
        )
    return x_N


def _paired(a_N: Floats, b_N: Floats) -> tuple[Floats, Floats]:
    a_N, b_N = _checked(a_N), _checked(b_N)
    if len(a_N) != len(b_N):
        raise ValueError(f"{len(a_N)} measurements against {len(b_N)}; expected pairs")
    return a_N, b_N
