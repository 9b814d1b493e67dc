"""Pairs: tables by hand, ties, missing rewards, and invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eva.formulas import pairing
from eva.formulas.pairing import (
    best_and_worst,
    bradley_terry_probabilities,
    is_usable,
    mean_wins,
    ties,
    win_probabilities,
)

nan = np.nan
Rewards = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(2, 6)),
    elements=st.one_of(st.integers(-3, 3).map(float), st.just(nan)),
)


def test_the_hand_computed_table_of_best_and_worst():
    rewards_P_G = np.array(
        [
            [2.0, 5.0, 1.0, 5.0],  # best 5 stands first at 1; worst 1 at 2; margin 4
            [1.0, 3.0, 1.0, 2.0],  # worst 1 stands first at 0; best 3 at 1; margin 2
            [nan, 2.0, nan, 7.0],  # best 7 at 3; worst 2 at 1; margin 5
            [4.0, 4.0, 4.0, 4.0],  # a tie: the first is both, margin 0
            [nan, nan, 6.0, nan],  # one alone: no margin
            [nan, nan, nan, nan],  # none: no margin
        ]
    )
    best_P, worst_P, margin_P = best_and_worst(rewards_P_G)
    assert best_P[:5].tolist() == [1, 1, 3, 0, 2]
    assert worst_P[:5].tolist() == [2, 0, 1, 0, 2]
    np.testing.assert_array_equal(margin_P, [4.0, 2.0, 5.0, 0.0, nan, nan])
    assert is_usable(margin_P).tolist() == [True, True, True, False, False, False]
    assert ties(margin_P) == 1


def test_the_hand_computed_table_of_win_probabilities():
    rewards_P_G = np.array(
        [
            # 1 beats none and ties one: 1/2 of 3. 4 beats 3 of 3. 2 beats two: 2/3.
            [1.0, 4.0, 2.0, 1.0],
            [3.0, 3.0, 3.0, 3.0],  # each ties three: 3/2 of 3
            [nan, 5.0, 1.0, nan],  # 1 of 1, 0 of 1
            [nan, nan, 2.0, nan],  # nobody to beat
        ]
    )
    np.testing.assert_allclose(
        win_probabilities(rewards_P_G),
        [[1 / 6, 1.0, 2 / 3, 1 / 6], [0.5] * 4, [nan, 1.0, 0.0, nan], [nan] * 4],
        rtol=1e-15,
    )


def test_the_hand_computed_table_of_bradley_terry_probabilities():
    # With rewards log a and log b, sigmoid(log a - log b) = a / (a + b).
    a, b, c = np.log([1.0, 3.0, 4.0])
    rewards_P_G = np.array(
        [
            # 1 against 3 and 4: (1/4 + 1/5)/2. 3: (3/4 + 3/7)/2. 4: (4/5 + 4/7)/2.
            [a, b, c],
            [2.0, 2.0, 2.0],  # all equal: each wins half
            [b, nan, a],  # n = 2: 3/4 and 1/4
            [nan, nan, a],  # nobody to beat
            [nan, nan, nan],
        ]
    )
    np.testing.assert_allclose(
        bradley_terry_probabilities(rewards_P_G),
        [[9 / 40, 33 / 56, 24 / 35], [0.5] * 3, [0.75, nan, 0.25], [nan] * 3, [nan] * 3],
        rtol=1e-14,
    )


def test_binary_rewards_give_two_bradley_terry_probabilities():
    # One right of four: it wins s = sigmoid(1) each time; the others 1 - s once and 1/2 twice.
    s = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(
        bradley_terry_probabilities(np.array([[0.0, 1.0, 0.0, 0.0]])),
        [[(2 - s) / 3, s, (2 - s) / 3, (2 - s) / 3]],
        rtol=1e-15,
    )


@pytest.mark.parametrize("huge", [1e6, 1.7e308])
@pytest.mark.parametrize("scale", [1e-300, 1.0])
def test_huge_rewards_make_bradley_terry_certain_without_a_warning(huge, scale):
    np.testing.assert_array_equal(
        bradley_terry_probabilities(np.array([[huge, -huge, nan, huge]]), scale=scale),
        [[0.75, 0.0, nan, 0.75]],  # each of the huge ones beats one and ties one
    )


def test_a_difference_beyond_the_largest_float_is_measured_by_a_scale_as_large():
    # (r - (-r)) / r = 2
    s = 1 / (1 + math.exp(-2))
    np.testing.assert_allclose(
        bradley_terry_probabilities(np.array([[1.7e308, -1.7e308]]), scale=1.7e308),
        [[s, 1 - s]],
        rtol=1e-14,
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, nan])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        bradley_terry_probabilities(np.zeros((1, 2)), scale=scale)


@pytest.mark.parametrize(
    "formula", [best_and_worst, win_probabilities, bradley_terry_probabilities]
)
def test_wrong_shapes_and_infinite_rewards_are_refused(formula):
    for shape in ((4,), (4, 1), (2, 3, 4)):
        with pytest.raises(ValueError, match="rewards have shape"):
            formula(np.zeros(shape))
    with pytest.raises(ValueError, match="infinite reward"):
        formula(np.array([[0.0, np.inf]]))


def test_a_margin_beyond_the_largest_float_is_refused_and_huge_rewards_are_not():
    assert best_and_worst(np.array([[1e300, -1e300]]))[2] == 2e300
    np.testing.assert_array_equal(win_probabilities(np.array([[1.7e308, -1.7e308]])), [[1.0, 0.0]])
    with pytest.raises(ValueError, match="exceeds the largest float"):
        best_and_worst(np.array([[1.7e308, -1.7e308]]))


def test_no_prompts_give_no_pairs():
    best_P, worst_P, margin_P = best_and_worst(np.empty((0, 4)))
    assert best_P.shape == worst_P.shape == margin_P.shape == (0,)
    for formula in (win_probabilities, bradley_terry_probabilities):
        assert formula(np.empty((0, 4))).shape == (0, 4)


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_the_margin_is_what_lies_between_the_two(rewards_P_G):
    best_P, worst_P, margin_P = best_and_worst(rewards_P_G)
    rows_P = np.flatnonzero(~np.isnan(margin_P))
    best_rewards, worst_rewards = (rewards_P_G[rows_P, i[rows_P]] for i in (best_P, worst_P))
    np.testing.assert_array_equal(best_rewards - worst_rewards, margin_P[rows_P])
    for row, best, worst in zip(rows_P, best_P[rows_P], worst_P[rows_P], strict=True):
        group = rewards_P_G[row].tolist()  # list.index finds the first one
        assert best == group.index(np.nanmax(rewards_P_G[row]))
        assert worst == group.index(np.nanmin(rewards_P_G[row]))


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_win_probabilities_equal_the_slow_count(rewards_P_G):
    P, G = rewards_P_G.shape
    expected_P_G = np.full((P, G), nan)
    for i in range(P):
        there = [j for j in range(G) if not np.isnan(rewards_P_G[i, j])]
        for j in there:
            duels = [
                np.sign(rewards_P_G[i, j] - rewards_P_G[i, k]) / 2 + 0.5 for k in there if k != j
            ]
            if duels:
                expected_P_G[i, j] = sum(duels) / len(duels)
    np.testing.assert_allclose(win_probabilities(rewards_P_G), expected_P_G, rtol=1e-14)


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, scale=st.floats(0.1, 10.0))
def test_bradley_terry_probabilities_equal_the_slow_mean_and_have_mean_one_half(rewards_P_G, scale):
    w_P_G = bradley_terry_probabilities(rewards_P_G, scale=scale)
    for r_G, w_G in zip(rewards_P_G.tolist(), w_P_G.tolist(), strict=True):
        there = [j for j, r in enumerate(r_G) if not math.isnan(r)]
        for j, w in enumerate(w_G):
            wins = [1 / (1 + math.exp((r_G[k] - r_G[j]) / scale)) for k in there if k != j]
            expected = sum(wins) / len(wins) if j in there and wins else nan
            assert w == pytest.approx(expected, abs=1e-14, nan_ok=True)
        if len(there) > 1:
            assert sum(w_G[j] for j in there) / len(there) == pytest.approx(0.5, abs=1e-14)


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards)
def test_bradley_terry_at_a_small_scale_counts_wins(rewards_P_G):
    # Whole numbers differ by 1 or more: sigmoid(1 / 0.01) is 1 to within 1e-43.
    np.testing.assert_allclose(
        bradley_terry_probabilities(rewards_P_G, scale=0.01),
        win_probabilities(rewards_P_G),
        rtol=1e-15,
    )


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, shift=st.integers(-64, 64), scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_bradley_terry_probabilities_depend_on_differences_over_the_scale(
    rewards_P_G, shift, scale
):
    np.testing.assert_array_equal(
        bradley_terry_probabilities(scale * (rewards_P_G + shift), scale=scale),
        bradley_terry_probabilities(rewards_P_G),
    )


@pytest.mark.parametrize("formula", [win_probabilities, bradley_terry_probabilities])
@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, data=st.data())
def test_permuting_prompts_and_responses_permutes_win_probabilities(formula, rewards_P_G, data):
    order_P = data.draw(st.permutations(range(rewards_P_G.shape[0])))
    order_G = data.draw(st.permutations(range(rewards_P_G.shape[1])))
    np.testing.assert_array_equal(
        formula(rewards_P_G[order_P][:, order_G]),
        formula(rewards_P_G)[order_P][:, order_G],
    )


@settings(deadline=None, max_examples=50)
@given(rewards_P_G=Rewards, scale=st.integers(1, 64), shift=st.integers(-64, 64))
def test_an_affine_map_keeps_the_pairs_and_scales_the_margins(rewards_P_G, scale, shift):
    before, after = best_and_worst(rewards_P_G), best_and_worst(scale * rewards_P_G + shift)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[2], scale * before[2])
    np.testing.assert_array_equal(
        win_probabilities(scale * rewards_P_G + shift), win_probabilities(rewards_P_G)
    )


@pytest.mark.parametrize("formula", [win_probabilities, bradley_terry_probabilities])
def test_win_probabilities_do_not_depend_on_the_block(formula, monkeypatch):
    rewards_P_G = np.random.default_rng(1).integers(0, 4, size=(20, 5)).astype(float)
    whole_P_G = formula(rewards_P_G)
    monkeypatch.setattr(pairing, "BLOCK", 3)
    np.testing.assert_array_equal(formula(rewards_P_G), whole_P_G)


def test_the_hand_computed_table_of_mean_wins():
    p_P_G_G = np.full((2, 3, 3), nan)
    # Prompt 0: 0 against 1 is (0.9 + 1 - 0.3) / 2 = 0.8; of 0 and 2 one order is known, so neither
    # has the other as a rival; 1 against 2 is (1 + 1 - 1) / 2 = 0.5. 1: (0.2 + 0.5) / 2 = 0.35.
    p_P_G_G[0, 0, 1], p_P_G_G[0, 1, 0], p_P_G_G[0, 0, 2] = 0.9, 0.3, 0.5
    p_P_G_G[0, 1, 2] = p_P_G_G[0, 2, 1] = 1.0
    np.fill_diagonal(p_P_G_G[1], 1.0)  # a response is no rival of itself
    np.testing.assert_allclose(mean_wins(p_P_G_G), [[0.8, 0.35, 0.5], [nan, nan, nan]], rtol=1e-15)


@given(hnp.arrays(np.float64, (2, 4, 4), elements=st.floats(0.0, 1.0)), st.permutations(range(4)))
def test_mean_wins_lie_in_the_unit_interval_around_a_half_and_move_with_the_responses(p, order):
    wins_P_G = mean_wins(p)
    assert ((wins_P_G >= 0.0) & (wins_P_G <= 1.0)).all()
    np.testing.assert_allclose(wins_P_G.mean(axis=1), 0.5, rtol=1e-12)
    turned = mean_wins(p[:, order][:, :, order])
    np.testing.assert_allclose(turned, wins_P_G[:, order], rtol=0.0, atol=1e-15)
