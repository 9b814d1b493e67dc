"""Advantages: tables by hand, a slow formula, missing rewards, and invariances."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eva.formulas.advantages import group_advantages, loo_advantages

nan = np.nan
Rewards = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(2, 6)),
    elements=st.one_of(st.integers(-3, 3).map(float), st.just(nan)),
)

TABLE = np.array(
    [
        [1.0, 2.0, 6.0],  # m = 3, s^2 = (4 + 1 + 9)/2 = 7
        [3.0, 3.0, 3.0],  # all equal
        [0.1, 0.1, 0.1],  # all equal, though their sum over three is not exact
        [nan, 5.0, 1.0],  # n = 2: m = 3, s^2 = (4 + 4)/1 = 8
        [1.0, 0.0, 0.0],  # binary: m = 1/3, s^2 = (4 + 1 + 1)/9/2 = 1/3
        [nan, 2.0, nan],  # one alone
        [nan, nan, nan],  # none
    ]
)


def test_the_hand_computed_table():
    np.testing.assert_allclose(
        group_advantages(TABLE, scaled=False),
        [
            [-2.0, -1.0, 3.0],
            [0.0] * 3,
            [0.0] * 3,
            [nan, 2.0, -2.0],
            [2 / 3, -1 / 3, -1 / 3],
            [nan] * 3,
            [nan] * 3,
        ],
        rtol=1e-15,
    )


def test_the_hand_computed_table_in_standard_deviations():
    np.testing.assert_allclose(
        group_advantages(TABLE, scaled=True),
        [
            [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5],
            [0.0] * 3,
            [0.0] * 3,
            [nan, 0.5**0.5, -(0.5**0.5)],  # two rewards are always one root of 1/2 away
            [2 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5],
            [nan] * 3,
            [nan] * 3,
        ],
        rtol=1e-14,
    )


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_group_advantages_equal_the_slow_formula(rewards_P_G):
    expected_P_G = np.full(rewards_P_G.shape, nan)
    scaled_P_G = expected_P_G.copy()
    for i, rewards_G in enumerate(rewards_P_G):
        there = [float(r) for r in rewards_G if not np.isnan(r)]
        if len(there) > 1:
            expected_P_G[i] = rewards_G - statistics.mean(there)
            scaled_P_G[i] = expected_P_G[i] / (statistics.stdev(there) or 1.0)
    np.testing.assert_allclose(
        group_advantages(rewards_P_G, scaled=False), expected_P_G, rtol=1e-13, atol=1e-14
    )
    np.testing.assert_allclose(
        group_advantages(rewards_P_G, scaled=True), scaled_P_G, rtol=1e-13, atol=1e-14
    )


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_leave_one_out_stretches_group_advantages_by_n_over_n_minus_1(rewards_P_G):
    n_P = np.count_nonzero(~np.isnan(rewards_P_G), axis=1)
    stretch_P = n_P / np.maximum(n_P - 1, 1)
    np.testing.assert_allclose(
        loo_advantages(rewards_P_G),
        stretch_P[:, None] * group_advantages(rewards_P_G, scaled=False),
        rtol=1e-14,
    )


@pytest.mark.parametrize("scaled", [False, True])
@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, data=st.data())
def test_permuting_prompts_and_responses_permutes_advantages(scaled, rewards_P_G, data):
    order_P = data.draw(st.permutations(range(rewards_P_G.shape[0])))
    order_G = data.draw(st.permutations(range(rewards_P_G.shape[1])))
    np.testing.assert_array_equal(
        group_advantages(rewards_P_G[order_P][:, order_G], scaled=scaled),
        group_advantages(rewards_P_G, scaled=scaled)[order_P][:, order_G],
    )


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, unit=st.sampled_from([1e-300, 1e-6, 1e6, 1e300]))
def test_scaled_advantages_do_not_depend_on_the_unit_of_the_rewards(rewards_P_G, unit):
    np.testing.assert_allclose(
        group_advantages(unit * rewards_P_G, scaled=True),
        group_advantages(rewards_P_G, scaled=True),
        rtol=1e-13,
        atol=1e-14,
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_wrong_shapes_infinite_rewards_and_what_overflows_are_refused(scaled):
    with pytest.raises(ValueError, match="rewards have shape"):
        group_advantages(np.zeros((4, 1)), scaled=scaled)
    with pytest.raises(ValueError, match="infinite reward"):
        group_advantages(np.array([[0.0, np.inf]]), scaled=scaled)
    with pytest.raises(ValueError, match="exceeds the largest float"):
        group_advantages(np.array([[1.7e308, -1.7e308]]), scaled=scaled)


@pytest.mark.parametrize("scaled", [False, True])
def test_no_prompts_have_no_advantages(scaled):
    assert group_advantages(np.empty((0, 4)), scaled=scaled).shape == (0, 4)
