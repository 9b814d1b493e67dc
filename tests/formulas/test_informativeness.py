"""Informativeness metrics: tables by hand, a slow formula in fractions, and invariances."""

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eva.formulas import informativeness
from eva.formulas.informativeness import (
    INFO,
    a_avg,
    a_dts,
    a_min,
    inv_a_min,
    inv_avg,
    learnability,
    leave_one_out,
    loo_advantages,
    loo_rms,
    uniform,
    var,
)
from eva.formulas.selection import min_max_weights
from eva.parts.creators import InfoName

nan = np.nan
METRICS = {**INFO, "loo_rms": loo_rms, "leave_one_out": leave_one_out}

# Five groups of up to four rewards.
TABLE = np.array(
    [
        [1.0, 4.0, 2.0, 1.0],  # A: all there
        [3.0, 3.0, 3.0, 3.0],  # B: all tie
        [nan, 5.0, 1.0, nan],  # C: two are missing
        [nan, nan, 2.0, nan],  # D: one alone
        [nan, nan, nan, nan],  # E: none
    ]
)
EXPECTED = {
    # A: 4 - 1. B: 3 - 3. C: 5 - 1.
    "a_min": [3.0, 0.0, 4.0, nan, nan],
    # A: m = (1+4+2+1)/4 = 2, 4 - 2. C: m = (5+1)/2 = 3, 5 - 3.
    "a_avg": [2.0, 0.0, 2.0, nan, nan],
    # A: 4 - 2. C: 5 - 1.
    "a_dts": [2.0, 0.0, 4.0, nan, nan],
    # A: ((1-2)^2 + (4-2)^2 + 0 + (1-2)^2)/4 = 6/4. C: (2^2 + 2^2)/2.
    "var": [1.5, 0.0, 4.0, nan, nan],
    "avg": [2.0, 3.0, 3.0, nan, nan],
    "inv_avg": [-2.0, -3.0, -3.0, nan, nan],
    "inv_a_min": [-3.0, 0.0, -4.0, nan, nan],
    "uniform": [1.0, 1.0, 1.0, nan, nan],
    # n/(n-1) sqrt(var). A: 4/3 sqrt(3/2). C: 2/1 sqrt(4).
    "loo_rms": [4 / 3 * 1.5**0.5, 0.0, 4.0, nan, nan],
    # A: n/(n-1) (r - m) = 4/3 (-1, 2, 0, -1), whose sum is 0. C: 2 (2, -2), whose sum is 0.
    "leave_one_out": [0.0, 0.0, 0.0, nan, nan],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_hand_computed_table(name):
    np.testing.assert_allclose(METRICS[name](TABLE), EXPECTED[name], rtol=1e-15, atol=1e-15)


def test_the_hand_computed_table_of_learnability():
    # p = 1/4: 1/4 * 3/4. p = (1 + 1/2)/2 = 3/4: the same. p = 1 and p = 0: 0.
    rewards_P_G = np.array([[1, 0, 0, 0], [1, 0.5, nan, nan], [1, 1, 1, 1], [0, 0, 0, nan]])
    np.testing.assert_array_equal(learnability(rewards_P_G), [0.1875, 0.1875, 0.0, 0.0])


def test_the_hand_computed_table_of_leave_one_out_advantages():
    # A: 1 - (4+2+1)/3 = -4/3, 4 - (1+2+1)/3 = 8/3, 2 - (1+4+1)/3 = 0, 1 - (1+4+2)/3 = -4/3.
    # C: five less one, and one less five.
    np.testing.assert_allclose(
        loo_advantages(TABLE),
        [
            [-4 / 3, 8 / 3, 0.0, -4 / 3],
            [0.0, 0.0, 0.0, 0.0],
            [nan, 4.0, -4.0, nan],
            [nan] * 4,
            [nan] * 4,
        ],
        rtol=1e-15,
    )


def test_a_recipe_can_name_each_metric_and_no_other():
    assert set(INFO) == set(get_args(InfoName))
    assert all(getattr(informativeness, name) is metric for name, metric in INFO.items())


@pytest.mark.parametrize("k", range(5))
def test_binary_rewards_make_the_metrics_fall_together(k):
    # given k of n = 4 responses right, p = k/n
    rewards_P_G = np.array([[1.0] * k + [0.0] * (4 - k)])
    p = k / 4

    # then, as the module says
    assert a_min(rewards_P_G) == (1 if 0 < k < 4 else 0)
    assert a_dts(rewards_P_G) == (1 if k == 1 else 0)
    assert a_avg(rewards_P_G) == (1 - p if k > 0 else 0)
    assert var(rewards_P_G) == p * (1 - p)
    assert learnability(rewards_P_G) == p * (1 - p)


@pytest.mark.parametrize("reward", [-0.1, 1.1, 2.0])
def test_learnability_refuses_rewards_that_are_no_success(reward):
    with pytest.raises(
        ValueError, match=rf"prompt 1 has reward {reward}; learnability .* \[0, 1\]"
    ):
        learnability(np.array([[0.0, 1.0], [nan, reward]]))


def test_the_inverse_metrics_give_one_minus_the_min_max_weight():
    rewards_P_G = np.random.default_rng(1).normal(size=(40, 6))
    for metric, inverse in ((INFO["avg"], inv_avg), (a_min, inv_a_min)):
        info_P = metric(rewards_P_G)
        flipped_P = 1 - (info_P - info_P.min()) / (info_P.max() - info_P.min())
        weights_P = min_max_weights(inverse(rewards_P_G))
        np.testing.assert_allclose(weights_P, flipped_P / flipped_P.sum(), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_wrong_shapes_and_infinite_rewards_are_refused(name):
    for shape in ((4,), (4, 1), (2, 3, 4)):
        with pytest.raises(ValueError, match="rewards have shape"):
            METRICS[name](np.zeros(shape))
    with pytest.raises(ValueError, match="infinite reward"):
        METRICS[name](np.array([[0.0, np.inf]]))


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"var", "learnability"}))
@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_a_huge_or_tiny_scale_is_only_a_scale(name, scale):
    rewards_P_G = np.array([[1.0, 4.0, 2.0, 1.0], [3.0, 0.0, -5.0, 2.0]])
    expected_P = METRICS[name](rewards_P_G) * (1 if name == "uniform" else scale)
    info_P = METRICS[name](rewards_P_G * scale)
    np.testing.assert_allclose(info_P, expected_P, rtol=1e-14, atol=1e-14 * scale)


def test_a_variance_beyond_the_largest_float_is_refused():
    assert var(np.array([[1e150, -1e150]])) == pytest.approx(1e300)
    with pytest.raises(ValueError, match="exceeds the largest float"):
        var(np.array([[1e155, -1e155]]))  # (1e155)^2 = 1e310


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"avg", "inv_avg", "uniform"}))
def test_equal_rewards_teach_exactly_nothing(name):
    # given tenths, whose sum of six divided by six is not a tenth again
    rewards_P_G = np.full((3, 6), [[0.1], [0.7], [1.0]])
    expected_P = [0.1 * 0.9, 0.7 * 0.3, 0.0] if name == "learnability" else [0.0, 0.0, 0.0]
    tolerance = 1e-15 if name == "learnability" else 0.0
    np.testing.assert_allclose(METRICS[name](rewards_P_G), expected_P, rtol=tolerance)


def test_min_max_weights_of_the_mean_leave_one_out_advantage_are_rounding_error():
    # given rewards of unit scale
    rewards_P_G = np.random.default_rng(1).normal(size=(100, 6))

    # then the score is noise in the last bits, and the weights of it are a draw
    info_P = leave_one_out(rewards_P_G)
    assert np.abs(info_P).max() < 1e-14
    assert min_max_weights(info_P).max() > 0


# ------------------------------------------------------------------ properties

Rewards = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(2, 7)),
    # eighths, and often missing: exact in binary, so that slow formulas can be exact too
    elements=st.one_of(st.integers(-80, 80).map(lambda k: k / 8), st.just(nan)),
)
Unit = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(2, 7)),
    elements=st.one_of(st.integers(0, 8).map(lambda k: k / 8), st.just(nan)),
)


def slow(name, rewards):
    """The metric of one group, in fractions, straight from the definition."""
    r = sorted(Fraction(x) for x in rewards if not np.isnan(x))
    if len(r) < 2:
        return nan
    n, m = len(r), sum(r) / len(r)
    others = [(sum(r) - x) / (n - 1) for x in r]
    value = {
        "a_min": r[-1] - r[0],
        "a_avg": r[-1] - m,
        "a_dts": r[-1] - r[-2],
        "var": sum((x - m) ** 2 for x in r) / n,
        "avg": m,
        "inv_avg": -m,
        "inv_a_min": r[0] - r[-1],
        "uniform": 1,
        "learnability": m * (1 - m),
        "leave_one_out": sum(x - o for x, o in zip(r, others, strict=True)) / n,
        "loo_rms": float(sum((x - o) ** 2 for x, o in zip(r, others, strict=True)) / n) ** 0.5,
    }[name]
    return float(value)


@pytest.mark.parametrize("name", sorted(METRICS))
@settings(deadline=None, max_examples=40)
@given(rewards_P_G=Unit)
def test_every_metric_equals_the_slow_formula(name, rewards_P_G):
    expected_P = [slow(name, rewards_G) for rewards_G in rewards_P_G]
    np.testing.assert_allclose(METRICS[name](rewards_P_G), expected_P, rtol=1e-13, atol=1e-14)


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, data=st.data())
def test_permuting_responses_changes_no_bit_and_permuting_prompts_permutes_scores(
    rewards_P_G, data
):
    P, G = rewards_P_G.shape
    order_P = data.draw(st.permutations(range(P)))
    order_G = data.draw(st.permutations(range(G)))
    for name in set(METRICS) - {"learnability", "leave_one_out", "loo_rms"}:
        info_P = METRICS[name](rewards_P_G)
        np.testing.assert_array_equal(METRICS[name](rewards_P_G[:, order_G]), info_P)
        np.testing.assert_array_equal(METRICS[name](rewards_P_G[order_P]), info_P[order_P])
    advantages_P_G = loo_advantages(rewards_P_G)
    np.testing.assert_array_equal(
        loo_advantages(rewards_P_G[order_P][:, order_G]), advantages_P_G[order_P][:, order_G]
    )


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_an_affine_map_of_the_rewards_maps_the_scores(rewards_P_G, scale, shift):
    mapped_P_G = scale * rewards_P_G + shift
    for name in ("a_min", "a_avg", "a_dts", "inv_a_min", "loo_rms", "leave_one_out"):
        expected_P = scale * METRICS[name](rewards_P_G)
        np.testing.assert_allclose(METRICS[name](mapped_P_G), expected_P, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        METRICS["avg"](mapped_P_G),
        scale * METRICS["avg"](rewards_P_G) + shift,
        rtol=1e-9,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        METRICS["var"](mapped_P_G), scale**2 * METRICS["var"](rewards_P_G), rtol=1e-8, atol=1e-8
    )
    np.testing.assert_array_equal(uniform(mapped_P_G), uniform(rewards_P_G))


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, extra=st.integers(1, 3))
def test_further_missing_rewards_change_nothing(rewards_P_G, extra):
    wider_P_G = np.pad(rewards_P_G, ((0, 0), (0, extra)), constant_values=nan)
    for name in set(METRICS) - {"learnability"}:
        np.testing.assert_array_equal(METRICS[name](wider_P_G), METRICS[name](rewards_P_G))


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_only_groups_of_two_and_more_have_a_score(rewards_P_G):
    enough_P = np.count_nonzero(~np.isnan(rewards_P_G), axis=1) >= 2
    for name in set(METRICS) - {"learnability"}:
        np.testing.assert_array_equal(~np.isnan(METRICS[name](rewards_P_G)), enough_P)


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_gaps_are_ordered_and_no_spread_is_negative(rewards_P_G):
    there_P = ~np.isnan(a_min(rewards_P_G))
    r_P_G = rewards_P_G[there_P]
    assert (a_dts(r_P_G) <= a_min(r_P_G)).all()
    assert (a_avg(r_P_G) <= a_min(r_P_G)).all()
    for name in ("a_min", "a_avg", "a_dts", "var", "loo_rms"):
        assert (METRICS[name](r_P_G) >= 0).all()
