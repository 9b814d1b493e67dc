"""Statistics: tables by hand, relations between the formulas, and coverage of the interval."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva.formulas import statistics
from eva.formulas.statistics import (
    Estimate,
    bootstrap_interval,
    clustered,
    estimate,
    holm,
    p_value,
    paired_difference,
    win_rate,
)

nan = math.nan
Numbers = st.lists(st.integers(-40, 40).map(lambda k: k / 8), min_size=2, max_size=12)


def test_the_hand_computed_mean_and_standard_error():
    # mean (1+2+6)/3 = 3; squares 4 + 1 + 9 = 14; s^2 = 14/2 = 7; error sqrt(7/3)
    mean, error = estimate(np.array([1.0, 2.0, 6.0]))
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt(7 / 3), rel=1e-15)


def test_the_hand_computed_paired_difference():
    # differences 1, 2, 6: as above, however far apart the pairs themselves lie
    mean, error = paired_difference(np.array([101.0, 2.0, -4.0]), np.array([100.0, 0.0, -10.0]))
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt(7 / 3), rel=1e-15)


def test_the_hand_computed_win_rate():
    # win, tie, loss, win: (1 + 1/2 + 0 + 1)/4 = 5/8;
    # deviations 3/8, -1/8, -5/8, 3/8: squares (9 + 1 + 25 + 9)/64 = 44/64; error sqrt(44/64/12)
    mean, error = win_rate(np.array([3.0, 1.0, 0.0, 9.0]), np.array([2.0, 1.0, 1.0, -9.0]))
    assert mean == 0.625
    assert error == pytest.approx(math.sqrt(44 / 64 / 12), rel=1e-15)


def test_the_hand_computed_clustered_error():
    # mean (0+0+3+5)/4 = 2; sums of deviations: "a" -4, "b" 1, "c" 3;
    # C/(C-1) = 3/2; sum of squares 16 + 1 + 9 = 26; error sqrt(39)/4
    x_N = np.array([0.0, 3.0, 0.0, 5.0])
    mean, error = clustered(x_N, np.array(["a", "b", "a", "c"]))
    assert mean == 2.0
    assert error == pytest.approx(math.sqrt(39) / 4, rel=1e-15)


def test_one_measurement_or_one_cluster_has_no_error():
    one = np.array([2.0])
    assert estimate(one).mean == 2.0
    assert math.isnan(estimate(one).error)
    assert math.isnan(paired_difference(one, one).error)
    assert math.isnan(win_rate(one, one).error)
    assert math.isnan(clustered(np.array([1.0, 2.0]), np.array([5, 5])).error)
    assert all(math.isnan(end) for end in bootstrap_interval(one, np.random.default_rng(1)))


def test_equal_measurements_have_exactly_no_spread():
    x_N = np.full(7, 0.1)  # seven tenths do not sum to 7 * 0.1
    assert estimate(x_N) == (0.1, 0.0)
    assert bootstrap_interval(x_N, np.random.default_rng(1), draws=10) == (0.1, 0.1)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_a_huge_or_tiny_scale_is_only_a_scale(scale):
    mean, error = estimate(scale * np.array([1.0, 2.0, 6.0]))
    assert mean == pytest.approx(3 * scale)
    assert error == pytest.approx(math.sqrt(7 / 3) * scale)


@settings(deadline=None, max_examples=50)
@given(x=Numbers)
def test_clusters_of_one_give_the_plain_error(x):
    x_N = np.array(x)
    # the textbook formula, sample standard deviation over sqrt(N)
    assert estimate(x_N).error == pytest.approx(x_N.std(ddof=1) / math.sqrt(len(x)), abs=1e-14)
    assert clustered(x_N, np.arange(len(x))[::-1]) == pytest.approx(estimate(x_N), abs=1e-14)


@settings(deadline=None, max_examples=50)
@given(x=Numbers, copies=st.integers(1, 4))
def test_clusters_of_equal_size_give_the_error_of_their_means(x, copies):
    # given the same measurement several times: no new evidence
    x_N = np.repeat(x, copies)
    cluster_N = np.repeat(np.arange(len(x)), copies)
    # then the error is that of the single ones
    assert clustered(x_N, cluster_N) == pytest.approx(estimate(np.array(x)), abs=1e-13)


@settings(deadline=None, max_examples=50)
@given(x=Numbers, scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_an_affine_map_shifts_the_mean_and_scales_both(x, scale, shift):
    mean, error = estimate(np.array(x))
    mapped = estimate(scale * np.array(x) + shift)
    assert mapped == pytest.approx((scale * mean + shift, scale * error), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(x=Numbers, data=st.data())
def test_win_rates_of_the_two_sides_sum_to_one(x, data):
    a_N = np.array(x)
    b_N = np.array(data.draw(st.permutations(x)))
    assert win_rate(a_N, b_N).mean + win_rate(b_N, a_N).mean == pytest.approx(1.0, abs=1e-15)
    assert win_rate(a_N, b_N).error == pytest.approx(win_rate(b_N, a_N).error, abs=1e-15)


def test_the_bootstrap_interval_of_two_measurements_is_known_exactly():
    # resampled means of (0, 1): 0, 1/2, 1 with probability 1/4, 1/2, 1/4
    x_N = np.array([0.0, 1.0])
    assert bootstrap_interval(x_N, np.random.default_rng(1)) == (0.0, 1.0)  # 2.5 % < 1/4
    assert bootstrap_interval(x_N, np.random.default_rng(1), level=0.4) == (0.5, 0.5)  # 30 % > 1/4


def test_the_bootstrap_interval_nears_the_normal_one_for_many_measurements():
    x_N = np.random.default_rng(1).normal(size=400)
    mean, error = estimate(x_N)
    low, high = bootstrap_interval(x_N, np.random.default_rng(2))
    # the ends are quantiles of 10^4 means, each known to about error * 0.03; 0.15 is five of those
    assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_the_bootstrap_interval_is_too_short_for_few_measurements_as_its_docstring_says():
    # given 400 samples of five standard normal numbers, whose true mean is 0
    rng = np.random.default_rng(1)
    ends = [bootstrap_interval(rng.normal(size=5), rng, draws=100) for _ in range(400)]
    # then about 85 % cover it; a share of 400 has standard error sqrt(.85 * .15 / 400) = .018
    assert np.mean([low <= 0 <= high for low, high in ends]) == pytest.approx(0.85, abs=4 * 0.018)


def test_the_bootstrap_is_reproducible_by_its_seed():
    x_N = np.random.default_rng(1).normal(size=20)
    first, again, other = (
        bootstrap_interval(x_N, np.random.default_rng(seed), draws=50) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def slow_bootstrap(x_N, rng, draws):
    """The ends of the interval, one resample at a time."""
    means = []
    for _ in range(draws):
        drawn_N = x_N[rng.integers(len(x_N), size=len(x_N))]
        means.append(drawn_N[0] + np.mean(drawn_N - drawn_N[0]))
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("N", [2, 5, 10, 33])
@pytest.mark.parametrize("room", [1, 64, statistics.ROOM])
def test_the_bootstrap_draws_the_same_however_many_resamples_are_drawn_at_once(
    N, room, monkeypatch
):
    monkeypatch.setattr(statistics, "ROOM", room)
    x_N = np.random.default_rng(N).normal(size=N)
    found = bootstrap_interval(x_N, np.random.default_rng(7), draws=101)
    expected = slow_bootstrap(x_N, np.random.default_rng(7), 101)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("df", "t"),
    # Abramowitz & Stegun, table 26.10: |t| is as great in 5 % of all cases
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228),
     (29, 2.045), (30, 2.042), (120, 1.980)],
)  # fmt: skip
def test_p_agrees_with_the_printed_table(df, t):
    assert p_value(Estimate(t, 1.0), 0.0, df=df) == pytest.approx(0.05, abs=5e-5)


@pytest.mark.parametrize(
    ("df", "p"),
    # t = sqrt(df), so theta = pi/4, sin = cos = 1/sqrt(2), sin cos = cos^2 = 1/2
    [
        (1, 1 / 2),  # 1 - 2/pi pi/4
        (2, 1 - math.sqrt(1 / 2)),  # 1 - sin
        (3, 1 / 2 - 1 / math.pi),  # 1 - 2/pi (pi/4 + 1/2)
        (4, 1 - 5 / 4 * math.sqrt(1 / 2)),  # 1 - sin (1 + 1/2 1/2)
        (5, 1 / 2 - 4 / (3 * math.pi)),  # 1 - 2/pi (pi/4 + 1/2 (1 + 2/3 1/2))
        (6, 1 - 43 / 32 * math.sqrt(1 / 2)),  # 1 - sin (1 + 1/2 1/2 + 3/8 1/4)
    ],
)
def test_the_hand_computed_p(df, p):
    # given a mean 2 sqrt(df) above the value, with an error of 2
    found = Estimate(10.0 + 2 * math.sqrt(df), 2.0)
    assert p_value(found, 10.0, df=df) == pytest.approx(p, abs=1e-15)


@pytest.mark.parametrize("df", [1, 2, 3, 8, 9, 50, 51])
@pytest.mark.parametrize("t", [0.1, 1.0, 2.5])
def test_p_is_what_the_density_leaves_outside(df, t):
    # the slower formula: Simpson's rule over the density of t on [-t, t]
    x = np.linspace(-t, t, 2001)
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    density = scale * (1 + x**2 / df) ** (-(df + 1) / 2)
    weights = np.r_[1, np.tile([4, 2], 999), 4, 1] * (x[1] - x[0]) / 3
    assert p_value(Estimate(-t, 1.0), 0.0, df=df) == pytest.approx(1 - density @ weights, abs=1e-10)


@pytest.mark.parametrize("df", [10**6, 10**6 + 1])
def test_p_nears_that_of_the_normal_distribution_for_many_measurements(df):
    # P(|z| >= 2) = erfc(sqrt(2)); t differs by terms of order 1/df
    found = p_value(Estimate(2.0, 1.0), 0.0, df=df)
    assert found == pytest.approx(math.erfc(math.sqrt(2)), abs=1e-6)


def test_p_knows_what_has_no_spread_and_what_has_no_error():
    assert p_value(Estimate(0.02, 0.0), 0.02, df=4) == 1.0
    assert p_value(Estimate(0.03, 0.0), 0.02, df=4) == 0.0
    assert p_value(Estimate(50.0, 1.0), 0.0, df=30) < 1e-14
    assert p_value(Estimate(0.0, 1.0), 0.0, df=31) == 1.0
    assert math.isnan(p_value(Estimate(1.0, nan), 0.0, df=1))
    with pytest.raises(ValueError, match="df is 0; expected at least 1"):
        p_value(Estimate(1.0, 1.0), 0.0, df=0)


def test_the_hand_computed_correction():
    # in order .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and the last may not fall to .04
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-15)


def test_a_p_that_is_missing_is_not_counted_and_one_is_the_most():
    # two tests: .3 2 = .6, and .7 1 = .7
    assert holm(np.array([nan, 0.7, 0.3, nan])) == pytest.approx([nan, 0.7, 0.6, nan], nan_ok=True)
    assert holm(np.array([0.9, 0.8, 0.6])).tolist() == [1.0, 1.0, 1.0]
    assert holm(np.array([nan])) == pytest.approx([nan], nan_ok=True)
    assert holm(np.array([])).tolist() == []


@settings(deadline=None, max_examples=50)
@given(p=st.lists(st.floats(0, 1), max_size=9), data=st.data())
def test_the_correction_keeps_the_order_and_does_not_depend_on_it(p, data):
    p_N = np.array(p)
    order = data.draw(st.permutations(range(len(p))))
    corrected_N = holm(p_N)
    assert (holm(p_N[order]) == corrected_N[order]).all()
    assert (np.diff(corrected_N[np.argsort(p_N, kind="stable")]) >= 0).all()
    assert (
        (corrected_N >= p_N) & (corrected_N <= np.minimum(1, len(p) * p_N.max(initial=0)))
    ).all()


@pytest.mark.parametrize("wrong", [np.array([0.5, 1.5]), np.array([-0.1]), np.zeros((1, 1))])
def test_what_is_no_list_of_probabilities_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected a list of numbers in \[0, 1\]"):
        holm(wrong)


@pytest.mark.parametrize(
    ("x_N", "sentence"),
    [
        (np.array([]), r"shape \[0\]; expected \[N\]"),
        (np.array(1.0), r"shape \[\]; expected \[N\]"),
        (np.zeros((2, 2)), r"shape \[2, 2\]; expected \[N\]"),
        (np.array([1.0, nan]), "measurement 1 is not finite; leave out"),
        (np.array([math.inf, 1.0]), "measurement 0 is not finite"),
    ],
)
def test_what_is_no_list_of_finite_measurements_is_refused(x_N, sentence):
    with pytest.raises(ValueError, match=sentence):
        estimate(x_N)
    with pytest.raises(ValueError, match=sentence):
        bootstrap_interval(x_N, np.random.default_rng(1))


def test_what_does_not_match_is_refused():
    with pytest.raises(ValueError, match="2 measurements against 1; expected pairs"):
        paired_difference(np.array([1.0, 2.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="2 measurements against 1; expected pairs"):
        win_rate(np.array([1.0, 2.0]), np.array([1.0]))
    with pytest.raises(ValueError, match=r"2 measurements, but clusters of shape \(1,\)"):
        clustered(np.array([1.0, 2.0]), np.array([1]))


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.0}, {"draws": 0}])
def test_a_level_or_a_number_of_draws_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a level"):
        bootstrap_interval(np.array([1.0, 2.0]), np.random.default_rng(1), **wrong)
