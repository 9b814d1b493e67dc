"""Verdicts: p by hand, the correction for all claims, and what is said of them."""

import doctest
import math

import pytest

from eva.study import claims, table
from eva.study.claims import decimal
from tests.study.numbers import HARD, X0, asked, column, result, run

BETTER = {"better": "eva", "than": "new", "on": HARD}
GAPS = [0.02, 0.03, 0.04]
"""Mean .03, deviations .01, 0, .01, error .01/sqrt(3), so t = 3 sqrt(3) against 0. With two degrees
of freedom p = 1 - t/sqrt(t^2 + 2) = 1 - sqrt(27/29)."""
P = 1 - math.sqrt(27 / 29)


def ends(gaps, base=0.4):
    """eva above new by these gaps, seed by seed."""
    return column("new", [base] * len(gaps)) + column("eva", [base + gap for gap in gaps])


def judged(study, played):
    return claims.verdicts(study, table.tabled_results(study, played))


def verdict(study, played):
    (found,), unjudged = judged(study, played)
    assert unjudged == []
    return found


def test_a_claim_holds_by_the_hand_computed_p():
    found = verdict(asked(claims=[BETTER]), ends(GAPS))
    assert found.difference.mean == pytest.approx(0.03)
    assert found.p == pytest.approx(P)
    assert found.corrected == pytest.approx(P)
    assert found.outcome == "holds"
    # of 27 resamples of three, the means .02 and .04 have 1/27 each, more than 2.5 %
    assert found.sentence == (
        "On hard/sampled/reward eva ends .030 above new (95 % interval .020 to .040, 3 pairs, "
        "p = .035 corrected): holds."
    )


def test_a_claim_does_not_hold_on_the_other_side():
    found = verdict(asked(claims=[BETTER]), ends([-gap for gap in GAPS]))
    assert found.outcome == "does not hold"
    assert found.sentence == (
        "On hard/sampled/reward eva ends .030 below new (95 % interval \u2212.040 to \u2212.020, "
        "3 pairs, p = .035 corrected): does not hold."
    )


def test_a_second_claim_makes_both_harder():
    # the same p twice: Holm gives twice the smaller one to both
    back = {"better": "new", "than": "eva", "on": HARD}
    found, _ = judged(asked(claims=[BETTER, back]), ends(GAPS))
    assert [one.p for one in found] == pytest.approx([P, P])
    assert [one.corrected for one in found] == pytest.approx([2 * P, 2 * P])
    assert [one.outcome for one in found] == ["not resolved", "not resolved"]


def test_a_claim_by_a_margin_is_judged_against_the_margin():
    # .03 against .02: t = .01 / (.01/sqrt(3)) = sqrt(3), p = 1 - sqrt(3/5) = .225
    found = verdict(asked(claims=[BETTER | {"by": 0.02}]), ends(GAPS))
    assert found.p == pytest.approx(1 - math.sqrt(3 / 5))
    assert found.outcome == "not resolved"
    assert found.sentence == (
        "On hard/sampled/reward eva ends .030 above new, where more than .020 is claimed (95 % "
        "interval .020 to .040, 3 pairs, p = .225 corrected): not resolved."
    )
    # .03 against .06: as far from it as from 0, and below
    found = verdict(asked(claims=[BETTER | {"by": 0.06}]), ends(GAPS))
    assert found.p == pytest.approx(P)
    assert found.outcome == "does not hold"


def test_differences_without_any_spread_are_clear():
    found = verdict(asked(claims=[BETTER]), ends([0.25] * 3, base=0.5))
    assert (found.p, found.outcome) == (0.0, "holds")
    assert "3 pairs, p < .001 corrected): holds." in found.sentence
    tied = verdict(asked(claims=[BETTER]), ends([0.0] * 3))
    assert (tied.p, tied.outcome) == (1.0, "not resolved")
    assert tied.sentence == (
        "On hard/sampled/reward eva ends level with new (95 % interval .000 to .000, 3 pairs, "
        "p = 1.000 corrected): not resolved."
    )


def test_one_pair_resolves_nothing_and_corrects_nothing():
    other = {"better": "eva", "than": "static", "on": HARD}
    study = asked(arms={"new": {}, "static": {}, "eva": {}}, claims=[BETTER, other])
    played = ends(GAPS) + column("static", [0.1, None, None])
    (first, second), _ = judged(study, played)
    assert first.corrected == pytest.approx(P)
    assert (second.p, second.corrected, second.outcome) == (None, None, "not resolved")
    assert second.sentence == (
        "On hard/sampled/reward eva ends .320 above static (1 of 3 pairs): not resolved."
    )


def test_a_claim_without_any_pair_is_told_apart():
    found, unjudged = judged(asked(claims=[BETTER]), column("new", [0.4] * 3))
    assert found == []
    assert unjudged == [
        "On hard/sampled/reward eva cannot be set against new: there is no pair of runs that both "
        "measured it."
    ]


def test_the_cost_on_the_other_sets_stands_in_the_same_sentence():
    metrics = [HARD, X0, "easy/sampled/reward", "easy/greedy/reward", "hard/greedy/reward"]
    study = asked(claims=[BETTER], metrics=metrics, seeds=[1, 2])
    # the differences are the same on both seeds, so intervals have no width
    new = dict(zip(metrics, [0.25, 0.75, 0.5, 0.5, 0.5], strict=True))
    eva = dict(zip(metrics, [0.5, 0.5, 0.5, 0.1, 0.1], strict=True))
    played = [run(arm, seed, result(end)) for arm, end in (("new", new), ("eva", eva))
              for seed in (1, 2)]  # fmt: skip
    assert verdict(study, played).sentence == (
        "On hard/sampled/reward eva ends .250 above new (95 % interval .250 to .250, 2 pairs, "
        "p < .001 corrected): holds; in distribution (x0/sampled/reward) it ends .250 below "
        "(\u2212.250 to \u2212.250); on easy/sampled/reward it ends level (.000 to .000)."
    )


def test_the_cost_of_one_pair_has_no_interval_and_what_was_not_measured_has_no_cost():
    study = asked(claims=[BETTER], metrics=[HARD, X0, "easy/sampled/reward"], seeds=[1])
    played = [
        run("new", 1, result({HARD: 0.25, X0: 0.5})),
        run("eva", 1, result({HARD: 0.5, X0: 0.25})),
    ]
    assert verdict(study, played).sentence == (
        "On hard/sampled/reward eva ends .250 above new (1 pair): not resolved; in distribution "
        "(x0/sampled/reward) it ends .250 below."
    )


def test_a_claim_is_made_in_every_place_or_where_it_says():
    factors = {"theta_0": {"a": {}, "b": {}}, "reward": {"graded": {}, "binary": {}}}
    here = BETTER | {"where": {"reward": "binary"}}
    study = asked(factors=factors, pool=["theta_0"], claims=[BETTER, here], seeds=[1])
    played = [
        one
        for level, gap in (("graded", 0.5), ("binary", 0.25))
        for theta in "ab"
        for arm, end in (("new", 0.25), ("eva", 0.25 + gap))
        for one in column(arm, [end], place={"theta_0": theta, "reward": level})
    ]
    found, _ = judged(study, played)
    assert [one.place for one in found] == [
        {"reward": "graded"},
        {"reward": "binary"},
        {"reward": "binary"},
    ]
    assert [one.difference.mean for one in found] == [0.5, 0.25, 0.25]
    assert [one.difference.runs for one in found] == [2, 2, 2]
    assert found[1].sentence.startswith("With reward binary, on hard/sampled/reward eva ends .250")


def test_a_verdict_and_its_row_tell_one_interval():
    study = asked(claims=[BETTER])
    results = table.tabled_results(study, ends([0.01, 0.05, 0.02]))
    found, _ = claims.verdicts(study, results)
    assert table.rows(study, results)[-1].values[HARD] == found[0].difference


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0344, ".034"), (1.5, "1.500"), (-0.25, "\u2212.250"), (-0.0001, ".000"), (0.9996, "1.000")],
)
def test_numbers_are_told_with_three_decimals(value, text):
    assert decimal(value) == text


def test_the_example_of_the_docstring_holds():
    failed, attempted = doctest.testmod(claims)
    assert (failed, attempted) == (0, 1)
