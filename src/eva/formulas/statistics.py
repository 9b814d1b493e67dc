"""How sure a measured number is: standard errors, paired differences, intervals, win rates.

Measurements are finite: what is missing is counted by the caller and left out before. One
measurement has no standard error: NaN, never 0.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva.protocols import Floats


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
    means = [_mean(x_N[rng.integers(N, size=N)]) for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
