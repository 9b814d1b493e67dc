"""How much better each response is than the others of its prompt: what policy gradients weigh by.

A missing reward (NaN) is left out of its group and has no advantage, and neither has a group with
fewer than two rewards.
"""

import numpy as np

from eva.formulas.groups import checked
from eva.formulas.informativeness import avg, loo_advantages, loo_rms
from eva.protocols import Floats_P_G

__all__ = ["group_advantages", "loo_advantages"]


def group_advantages(rewards_P_G: Floats_P_G, *, scaled: bool) -> Floats_P_G:
    r"""Each reward minus the mean of its prompt, in standard deviations if scaled (GRPO).

    ::

        A_j = r_j - m    or    A_j = (r_j - m) / s
        m = (1/n) sum_k r_k,    s^2 = 1/(n-1) sum_k (r_k - m)^2 = (n-1)/n loo_rms(x)^2

    Sources: Zhihong Shao et al., "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in
    Open Language Models", https://arxiv.org/abs/2402.03300, section 4.1.2 (scaled); Zichen Liu et
    al., "Understanding R1-Zero-Like Training: A Critical Perspective",
    https://arxiv.org/abs/2503.20783 (not scaled). The paper does not say which standard deviation
    it takes; the sample's, with n - 1, is the field's trainers'. They also add 1e-4 or 1e-6 to s;
    that we do not, and that equal rewards give 0, is our choice: what is left does not depend on
    the unit of the rewards.

    Args:
        rewards_P_G: Shape [P, G], G >= 2, in reward units, finite; NaN where missing.
        scaled: Whether to divide by the standard deviation of the group.

    Returns:
        Shape [P, G], in reward units or in standard deviations; each row sums to 0 up to rounding,
        and is exactly 0 where all rewards are equal. NaN where the reward is missing, and in a
        whole group with fewer than two rewards.

    Raises:
        ValueError: Wrong shape, an infinite reward, or a value beyond the largest float.

    Examples:
        >>> rewards_P_G = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
        >>> group_advantages(rewards_P_G, scaled=True)  # s = 1, and 0
        array([[-1.,  0.,  1.],
               [ 0.,  0.,  0.]])
    """
    rewards_P_G = checked(rewards_P_G)
    A_P_G: Floats_P_G = rewards_P_G - avg(rewards_P_G)[:, None]
    if not scaled:
        return A_P_G
    n_P = np.maximum(np.count_nonzero(~np.isnan(rewards_P_G), axis=1), 1)
    s_P = np.sqrt((n_P - 1) / n_P) * loo_rms(rewards_P_G)
    return A_P_G / np.where(s_P > 0, s_P, 1.0)[:, None]
