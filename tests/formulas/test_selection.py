"""Selectors: exact probabilities by enumeration, ties, missing scores, seeds and borders."""

import math
from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eva.formulas.selection import (
    greedy,
    mean_ranks,
    min_max_weights,
    proportional,
    rank,
    stratified,
    uniform,
)

nan = np.nan


def floored(info_P, K, rng):
    return proportional(info_P, K, rng, floor=0.25)


SELECTORS = {
    "proportional": proportional,
    "floored": floored,
    "rank": rank,
    "greedy": greedy,
    "stratified": stratified,
    "uniform": uniform,
}
every_selector = pytest.mark.parametrize("select", SELECTORS.values(), ids=SELECTORS)


def rng(seed=1):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------ exact distributions


def successive(weights, K):
    """The probability of each set of K: all orders in which it can be drawn, one after another."""
    weights = {i: w for i, w in enumerate(weights) if w > 0}
    probability = Counter()
    for order in permutations(weights, K):
        left, p = math.fsum(weights.values()), 1.0
        for i in order:
            p *= weights[i] / left
            left -= weights[i]
        probability[tuple(sorted(order))] += p
    return probability


def assert_drawn_as_expected(select, info_P, K, expected, draws=4000):
    """A chi-square test of the drawn sets.

    The statistic has mean df and variance 2 df. The bound, five standard deviations and 10 above
    the mean, is passed by chance less than once in 10^5 (the 10 is for the skew at small df); the
    seed is fixed, so the test cannot fail by chance again.
    """
    generator = rng(7)
    counts = Counter(tuple(select(info_P, K, generator).tolist()) for _ in range(draws))
    assert set(counts) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-12)
    chi_square = sum((counts[s] - draws * p) ** 2 / (draws * p) for s, p in expected.items())
    df = len(expected) - 1
    assert chi_square <= df + 5 * math.sqrt(2 * df) + 10


@pytest.mark.parametrize("K", [1, 2, 3])
def test_proportional_draws_each_set_as_often_as_drawing_one_after_another(K):
    # info less its least one: 0, 1, 2, 3, 4 and one without a score
    info_P = np.array([5.0, 6.0, nan, 7.0, 8.0, 9.0])
    expected = successive([0, 1, 0, 2, 3, 4], K)
    assert_drawn_as_expected(proportional, info_P, K, expected)


def test_the_floor_mixes_in_the_uniform_distribution():
    # min-max weights 0, 1/4, 3/4; 3/4 of them and 1/4 of (1/3, 1/3, 1/3)
    q = [1 / 12, 3 / 16 + 1 / 12, 9 / 16 + 1 / 12]
    assert_drawn_as_expected(floored, np.array([1.0, 2.0, 4.0]), 2, successive(q, 2))


def test_a_floor_of_one_is_uniform():
    info_P = np.array([1.0, 2.0, 40.0, nan])
    expected = dict.fromkeys(combinations(range(3), 2), 1 / 3)
    assert_drawn_as_expected(lambda i, K, g: proportional(i, K, g, floor=1.0), info_P, 2, expected)


def test_rank_draws_in_proportion_to_mean_ranks():
    # ranks: 30 has 5, the two 20 share (3+4)/2, the two 10 share (1+2)/2
    info_P = np.array([20.0, 10.0, nan, 30.0, 20.0, 10.0])
    expected = successive([3.5, 1.5, 0, 5, 3.5, 1.5], 2)
    assert_drawn_as_expected(rank, info_P, 2, expected)


def test_uniform_draws_every_set_alike_whatever_the_scores():
    info_P = np.array([1.0, 1.0, nan, 100.0, 5.0])
    expected = dict.fromkeys(combinations([0, 1, 3, 4], 2), 1 / 6)
    assert_drawn_as_expected(uniform, info_P, 2, expected)


def test_greedy_takes_the_top_and_breaks_ties_evenly():
    # 9 is sure; two of the three 5 follow; 1 and the missing one never
    info_P = np.array([5.0, 9.0, 5.0, nan, 1.0, 5.0])
    expected = dict.fromkeys([(0, 1, 2), (0, 1, 5), (1, 2, 5)], 1 / 3)
    assert_drawn_as_expected(greedy, info_P, 3, expected)


def test_stratified_draws_by_weight_inside_each_bin():
    # given two bins, (8, 6) and (5, 4) and weights info - 4; one of each is drawn:
    # 8 against 6 as 4 to 2, and 5 against 4 as 1 to 0, so 4 (weight 0) never
    info_P = np.array([4.0, 8.0, 5.0, 6.0])
    assert_drawn_as_expected(stratified, info_P, 2, {(1, 2): 2 / 3, (2, 3): 1 / 3})


def test_stratified_puts_ties_at_an_edge_into_either_bin():
    # given 9, 5, 5, 4, 0 and K = 2: bins of three (the upper one) and two. Upper: 9, 5, 5 with
    # weights 9, 5, 5. Lower: 4, 0: always 4.
    info_P = np.array([5.0, 0.0, 9.0, 4.0, 5.0])
    expected = {(2, 3): 9 / 19, (0, 3): 5 / 19, (3, 4): 5 / 19}
    assert_drawn_as_expected(stratified, info_P, 2, expected)
    # given 9, 5, 5, 0 and K = 2: bins (9, a 5) and (the other 5, 0), and either 5 may be the upper.
    # Upper: 9 to 5. Lower: the other 5. Both 5 with 5/14; 9 and one of them with 9/14, half each.
    info_P = np.array([5.0, 9.0, 0.0, 5.0])
    expected = {(0, 3): 5 / 14, (0, 1): 9 / 28, (1, 3): 9 / 28}
    assert_drawn_as_expected(stratified, info_P, 2, expected)


# ------------------------------------------------------------------ tables by hand


def test_the_hand_computed_min_max_weights():
    # (info - 2)/(10 - 2) = 0, 1/2, 1/4, 1, of sum 7/4
    info_P = np.array([2.0, 6.0, nan, 4.0, 10.0])
    np.testing.assert_allclose(min_max_weights(info_P), [0, 2 / 7, 0, 1 / 7, 4 / 7], rtol=1e-15)


def test_equal_scores_have_equal_weights_and_no_scores_none():
    np.testing.assert_array_equal(min_max_weights(np.array([3.0, nan, 3.0])), [0.5, 0.0, 0.5])
    np.testing.assert_array_equal(min_max_weights(np.array([nan, nan])), [0.0, 0.0])
    assert min_max_weights(np.array([])).shape == (0,)


def test_the_hand_computed_mean_ranks():
    # in order: 1 (rank 1), 2 2 2 (ranks 2, 3, 4: mean 3), 7 7 (ranks 5, 6: mean 5.5)
    info_S = np.array([2.0, 7.0, 2.0, 1.0, 7.0, 2.0])
    np.testing.assert_array_equal(mean_ranks(info_S), [3.0, 5.5, 3.0, 1.0, 5.5, 3.0])
    assert mean_ranks(np.array([])).shape == (0,)


@pytest.mark.parametrize(("S", "K"), [(100, 20), (97, 33), (16, 15), (23, 7), (11, 11), (5, 3)])
def test_stratified_takes_equal_shares_of_ten_bins(S, K):
    # given scores 0 ... S-1, the best first in the bins
    chosen = set(stratified(np.arange(S, dtype=float), K, rng()).tolist())
    assert len(chosen) == K
    B = min(10, K)
    best_first = list(range(S))[::-1]
    for b in range(B):
        size = S // B + (b < S % B)
        bin_b, best_first = best_first[:size], best_first[size:]
        assert len(chosen & set(bin_b)) == K // B + (b < K % B)


# ------------------------------------------------------------------ rules for all selectors

Info = hnp.arrays(
    np.float64,
    st.integers(0, 30),
    elements=st.one_of(st.integers(-4, 4).map(float), st.just(nan)),
)


@every_selector
@settings(deadline=None, max_examples=50)
@given(info_P=Info, K=st.integers(1, 35), seed=st.integers(0, 5))
def test_the_chosen_are_distinct_scored_in_order_and_reproducible(select, info_P, K, seed):
    index_K = select(info_P, K, rng(seed))
    assert index_K.dtype == np.intp
    assert (np.diff(index_K) > 0).all()
    assert not np.isnan(info_P[index_K]).any()
    np.testing.assert_array_equal(select(info_P, K, rng(seed)), index_K)
    drawable = np.isfinite(info_P)
    if select is proportional:
        drawable = min_max_weights(info_P) > 0
    assert len(index_K) == min(K, np.count_nonzero(drawable))


@every_selector
@settings(deadline=None, max_examples=50)
@given(info_P=Info, K=st.integers(1, 12), scale=st.sampled_from([0.5, 2.0, 1024.0]))
def test_an_affine_map_of_the_scores_changes_no_draw(select, info_P, K, scale):
    # powers of two and small whole numbers: exact in binary, so the draws are the very same
    mapped_P = scale * info_P + 8.0
    np.testing.assert_array_equal(select(mapped_P, K, rng()), select(info_P, K, rng()))


@every_selector
def test_prompts_without_a_score_change_no_draw(select):
    info_P = rng(3).normal(size=20)
    places = np.sort(rng(4).permutation(50)[:20])
    wider_P = np.full(50, nan)
    wider_P[places] = info_P
    np.testing.assert_array_equal(select(wider_P, 6, rng()), places[select(info_P, 6, rng())])


@every_selector
def test_different_seeds_draw_differently_where_chance_decides(select):
    info_P = np.repeat([1.0, 2.0], 50)  # ties, for the greedy one
    draws = {tuple(select(info_P, 20, rng(seed)).tolist()) for seed in range(5)}
    assert len(draws) == 5


@every_selector
def test_permuting_the_pool_changes_no_chance(select):
    # given 0 ... 7 in two orders: each score is drawn as often, up to five standard errors of the
    # difference of two shares of 1500 draws (each at most sqrt(1/4/1500) = .013)
    info_P = np.arange(8.0)
    order = rng(5).permutation(8)
    shares = []
    for pool_P in (info_P, info_P[order]):
        generator = rng(6)
        chosen = np.concatenate([pool_P[select(pool_P, 3, generator)] for _ in range(1500)])
        shares.append(np.bincount(chosen.astype(int), minlength=8) / 1500)
    assert np.abs(shares[0] - shares[1]).max() < 5 * 0.013 * math.sqrt(2)


@every_selector
@pytest.mark.parametrize("K", [0, -1])
def test_fewer_than_one_is_refused(select, K):
    with pytest.raises(ValueError, match=f"K is {K}; expected to draw at least one"):
        select(np.arange(3.0), K, rng())


@every_selector
def test_wrong_shapes_and_infinite_scores_are_refused(select):
    for shape in ((), (3, 1)):
        with pytest.raises(ValueError, match=r"info has shape .*; expected \[P\]"):
            select(np.zeros(shape), 1, rng())
    with pytest.raises(ValueError, match="prompt 2 has an infinite score"):
        select(np.array([0.0, nan, -np.inf]), 1, rng())


@every_selector
def test_a_huge_scale_changes_no_draw(select):
    info_P = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    # 2^996 is about 6.7e299, and exact
    np.testing.assert_array_equal(select(info_P * 2.0**996, 3, rng()), select(info_P, 3, rng()))


def test_scores_too_far_apart_to_scale_are_refused():
    with pytest.raises(ValueError, match="more than the largest float apart"):
        min_max_weights(np.array([1.5e308, -1.5e308]))


@pytest.mark.parametrize("floor", [-0.1, 1.1, nan])
def test_a_floor_that_is_no_share_is_refused(floor):
    with pytest.raises(ValueError, match=r"floor is .*; expected a share"):
        proportional(np.arange(3.0), 1, rng(), floor=floor)


def test_proportional_never_draws_weight_zero_even_beside_the_tiniest_weights():
    # given weights 0, 0, 5e-324 and 1: an infinite key must not be taken for a weight of zero
    info_P = np.array([0.0, 5e-324, 1.0, 0.0])
    for seed in range(50):
        assert proportional(info_P, 2, rng(seed)).tolist() == [1, 2]
        assert proportional(info_P, 4, rng(seed)).tolist() == [1, 2]
        assert proportional(info_P, 1, rng(seed)).tolist() == [2]


def test_with_a_floor_everything_with_a_score_is_drawn_in_the_end():
    info_P = np.array([0.0, 0.0, 1000.0, nan, 1.0])
    generator = rng()
    seen = {int(i) for _ in range(200) for i in floored(info_P, 1, generator)}
    # the rarest, 0, has chance 1/16 in each draw: missed in 200 with (15/16)^200 = 2e-6
    assert seen == {0, 1, 2, 4}
    assert floored(info_P, 9, rng()).tolist() == [0, 1, 2, 4]
