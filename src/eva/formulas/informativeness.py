"""How much a prompt can still teach, from the rewards of its responses: info_theta(x).

The paper's proxy for regret is |r(x, y_best) - r(x, y_baseline)|: `a_min` offline, `a_avg` online;
the other functions are its ablations and their like. Each takes rewards [P, G] and returns info
[P]: a missing reward (NaN) is left out of its group, and a group with fewer than two rewards has no
score, NaN. With binary rewards, k of n right and p = k/n, they fall together: `a_min` is a step (1
if 0 < k < n, else 0), `a_dts` is 1 only if k = 1, `a_avg` is 1 - p (but 0 if k = 0), `var` and
`learnability` are p (1 - p). Rewards may be as large as 1e300, but for the square in `var` only
1e150; what exceeds the largest float is refused, never infinite.

"The paper", below: Ziyu Ye et al., "Scalable Reinforcement Post-Training Beyond Static Human
Prompts: Evolving Alignment via Asymmetric Self-Play", https://arxiv.org/abs/2411.00062.
"""

from functools import reduce

import numpy as np

from eva.formulas.groups import checked, over_groups
from eva.protocols import Floats_P, Floats_P_G, Info


def _mean(x_P_n: Floats_P_G) -> Floats_P:
    """Mean over n, added along the prompts: for six rewards four times as fast as row by row."""
    total_P: Floats_P = reduce(np.add, x_P_n.T)
    mean_P: Floats_P = total_P / x_P_n.shape[1]
    return mean_P


def _avg(r_P_n: Floats_P_G) -> Floats_P:
    """Mean of sorted groups as least reward plus mean excess: exact where all rewards are equal."""
    return r_P_n[:, 0] + _mean(r_P_n - r_P_n[:, :1])


def a_min(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""A*_min, best minus worst: the paper's default offline.

    ::

        info(x) = max_j r(x, y_j) - min_j r(x, y_j)

    Source: the paper, informativeness proxy (offline baseline: the least reward).

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units, >= 0; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> a_min(np.array([[1.0, 4.0, 2.0], [3.0, 3.0, 3.0]]))
        array([3., 0.])
    """
    return over_groups(lambda r_P_n: r_P_n[:, -1] - r_P_n[:, 0], rewards_P_G)


def a_avg(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""A*_avg, best minus mean: the paper's default online.

    ::

        info(x) = max_j r(x, y_j) - (1/n) sum_j r(x, y_j) = (1/n) sum_j (r_max - r_j)

    Source: the paper, informativeness proxy (online baseline: the mean reward). The right form is
    the one that is computed: never negative, and exactly 0 where all rewards are equal.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units, >= 0; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> a_avg(np.array([[1.0, 4.0, 1.0], [3.0, 3.0, 3.0]]))
        array([2., 0.])
    """
    return over_groups(lambda r_P_n: _mean(r_P_n[:, -1:] - r_P_n), rewards_P_G)


def a_dts(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""A*_dts, best minus second best.

    ::

        info(x) = r_(1) - r_(2),    r_(1) >= r_(2) >= ... the rewards of x in falling order

    Source: the paper, metric ablation (after duelling Thompson sampling).

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units, >= 0, 0 if the best two tie; NaN for a group with fewer than two
        rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> a_dts(np.array([[1.0, 4.0, 2.0], [1.0, 4.0, 4.0]]))
        array([2., 0.])
    """
    return over_groups(lambda r_P_n: r_P_n[:, -1] - r_P_n[:, -2], rewards_P_G)


def var(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""Population variance of the rewards.

    ::

        info(x) = (1/n) sum_j (r_j - m)^2,    m = (1/n) sum_j r_j

    Source: the paper, metric ablation; the divisor n is the released code's.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in squared reward units, >= 0; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or rewards that spread over more than about
            1e154, whose variance exceeds the largest float.

    Examples:
        >>> var(np.array([[1.0, 3.0], [3.0, 3.0]]))
        array([1., 0.])
    """
    return over_groups(lambda r_P_n: _mean((r_P_n - _avg(r_P_n)[:, None]) ** 2), rewards_P_G)


def avg(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""Mean reward: favours prompts that are already answered well.

    ::

        info(x) = (1/n) sum_j r(x, y_j)

    Source: the paper, metric ablation. That one reward alone gives NaN is our choice: one rule for
    all metrics, so that metrics compared in a study see the same prompts.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> avg(np.array([[1.0, 4.0, 1.0], [5.0, np.nan, np.nan]]))
        array([ 2., nan])
    """
    return over_groups(_avg, rewards_P_G)


def inv_avg(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""The paper's "1/avg(r)": favours prompts that are answered badly.

    ::

        info(x) = - (1/n) sum_j r(x, y_j)

    Source: the paper, metric ablation. In the released code it is no reciprocal: the weight is one
    minus the min-max scaled mean. The negative gives just that, since
    minmax(-m) = (-m + max m) / (max m - min m) = 1 - minmax(m); and unlike a reciprocal it has no
    pole and does not depend on where the zero of the rewards lies.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> inv_avg(np.array([[1.0, 4.0, 1.0], [3.0, 3.0, 3.0]]))
        array([-2., -3.])
    """
    return -avg(rewards_P_G)


def inv_a_min(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""The paper's "1/A*_min": favours prompts whose responses are rewarded alike.

    ::

        info(x) = min_j r(x, y_j) - max_j r(x, y_j)

    Source: the paper, metric ablation. As in `inv_avg`, the released code's weight is one minus the
    min-max scaled gap, which is the min-max scaled negative gap.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units, <= 0; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> inv_a_min(np.array([[1.0, 4.0, 2.0]]))
        array([-3.])
    """
    return -a_min(rewards_P_G)


def uniform(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""The same for every prompt that has a score.

    ::

        info(x) = 1

    Source: the paper, metric ablation.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], ones; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape or an infinite reward.

    Examples:
        >>> uniform(np.array([[1.0, 4.0], [np.nan, 4.0]]))
        array([ 1., nan])
    """
    return over_groups(lambda r_P_n: np.ones(len(r_P_n)), rewards_P_G)


def learnability(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""Success rate times failure rate.

    ::

        info(x) = p (1 - p),    p = (1/n) sum_j r_j,    r_j in [0, 1]

    Source: Alexander Rutherford et al., "No Regrets: Investigating and Improving Regret
    Approximations for Curriculum Discovery", https://arxiv.org/abs/2408.15099. The mean reward is
    read as a probability of success, so a reward outside [0, 1] is refused rather than clipped.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in [0, 1]; NaN where missing.

    Returns:
        Shape [P], in [0, 1/4]; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, or a reward outside [0, 1].

    Examples:
        >>> learnability(np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
        array([0.25, 0.  ])
    """
    rewards_P_G = checked(rewards_P_G)
    outside_P_G = (rewards_P_G < 0) | (rewards_P_G > 1)
    if outside_P_G.any():
        first = int(outside_P_G.argmax())
        raise ValueError(
            f"prompt {first // rewards_P_G.shape[1]} has reward {rewards_P_G.flat[first]}; "
            "learnability p(1-p) reads rewards as success and expects [0, 1]; rescale them, or "
            "take another metric"
        )
    return over_groups(lambda r_P_n: _avg(r_P_n) * _mean(1 - r_P_n), rewards_P_G)


def loo_advantages(rewards_P_G: Floats_P_G) -> Floats_P_G:
    r"""Each reward minus the mean of the other rewards of its prompt (RLOO).

    ::

        A_j = r_j - 1/(n-1) sum_{k != j} r_k
            = r_j - (n m - r_j) / (n-1) = n/(n-1) (r_j - m),    m = (1/n) sum_k r_k

    Source: Arash Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization for
    Learning from Human Feedback in LLMs", https://arxiv.org/abs/2402.14740.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P, G], in reward units; each row sums to 0 up to rounding. NaN where the reward is
        missing, and in a whole group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> loo_advantages(np.array([[1.0, 2.0, 6.0]]))  # 1 - 4, 2 - 3.5, 6 - 1.5
        array([[-3. , -1.5,  4.5]])
    """
    rewards_P_G = checked(rewards_P_G)
    m_P = avg(rewards_P_G)
    n_P = np.count_nonzero(~np.isnan(rewards_P_G), axis=1)
    ratio_P = n_P / np.maximum(n_P - 1, 1)
    A_P_G: Floats_P_G = ratio_P[:, None] * (rewards_P_G - m_P[:, None])
    return A_P_G


def leave_one_out(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""The mean leave-one-out advantage, which is 0 for every prompt; do not select by it.

    ::

        info(x) = (1/n) sum_j A_j = 1/(n-1) sum_j (r_j - m) = 1/(n-1) (n m - n m) = 0

    Source: the released code of the paper ("reward_loo"); it is not in the recipe's list. What is
    left is rounding error, and min-max scaling blows that up to weights in [0, 1]: a draw decided
    by the last bits of the rewards. `loo_rms` measures what was meant.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units, 0 up to rounding; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> leave_one_out(np.array([[1.0, 2.0, 6.0]]))
        array([0.])
    """
    return over_groups(_mean, loo_advantages(rewards_P_G))


def loo_rms(rewards_P_G: Floats_P_G) -> Floats_P:
    r"""Root mean square of the leave-one-out advantages.

    ::

        info(x) = sqrt((1/n) sum_j A_j^2) = n/(n-1) sqrt((1/n) sum_j (r_j - m)^2)
                = n/(n-1) sqrt(var(x))

    Our choice; the paper does not specify it. It is what the mean of `leave_one_out` cannot be, a
    size. With as many rewards for every prompt it ranks prompts as `var` does, but in reward units,
    so that an outlier takes less of the min-max scale.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.

    Returns:
        Shape [P], in reward units, >= 0; NaN for a group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> loo_rms(np.array([[1.0, 3.0]]))  # advantages -2 and 2
        array([2.])
    """
    return over_groups(_root_mean_square, loo_advantages(rewards_P_G))


def _root_mean_square(A_P_n: Floats_P_G) -> Floats_P:
    """Root mean square over n; hypot does not overflow where a sum of squares would."""
    norm_P: Floats_P = reduce(np.hypot, A_P_n.T)
    rms_P: Floats_P = norm_P / np.sqrt(A_P_n.shape[1])
    return rms_P


INFO: dict[str, Info] = {
    "a_min": a_min,
    "a_avg": a_avg,
    "a_dts": a_dts,
    "var": var,
    "avg": avg,
    "inv_avg": inv_avg,
    "inv_a_min": inv_a_min,
    "uniform": uniform,
    "learnability": learnability,
}
"""The metrics that a recipe can name; `eva.config.InfoName` lists the same names."""
