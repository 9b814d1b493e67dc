"""Verdicts: p by hand, the correction for all claims, and what is said of them."""

import math

import pytest

from eva.study import claims, table
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
        "On hard/sampled/reward eva ends 0.030 above new (95 % interval 0.020 to 0.040 above, "
        "3 pairs, p = 0.035 corrected): holds."
    )


def test_a_claim_does_not_hold_on_the_other_side():
    found = verdict(asked(claims=[BETTER]), ends([-gap for gap in GAPS]))
    assert found.outcome == "does not hold"
    assert found.sentence == (
        "On hard/sampled/reward eva ends 0.030 below new (95 % interval 0.020 to 0.040 below, "
        "3 pairs, p = 0.035 corrected): does not hold."
    )


def test_a_second_claim_makes_both_harder():
    # the same p twice: Holm gives twice the smaller one to both
    back = {"better": "new", "than": "eva", "on": HARD}
    found, _ = judged(asked(claims=[BETTER, back]), ends(GAPS))
    assert [one.p for one in found] == pytest.approx([P, P])
    assert [one.corrected for one in found] == pytest.approx([2 * P, 2 * P])
    assert [one.outcome for one in found] == ["not resolved", "not resolved"]


def test_a_claim_by_a_margin_is_judged_against_the_margin():
    # .03 against .02: t = .01 / (.01/sqrt(3)) = sqrt(3), p = 1 - sqrt(3/5) = 0.225
    found = verdict(asked(claims=[BETTER | {"by": 0.02}]), ends(GAPS))
    assert found.p == pytest.approx(1 - math.sqrt(3 / 5))
    assert found.outcome == "not resolved"
    assert found.sentence == (
        "On hard/sampled/reward eva ends 0.030 above new, where more than 0.020 is claimed (95 % "
        "interval 0.020 to 0.040 above, 3 pairs, p = 0.225 corrected): not resolved."
    )
    # .03 against .06: as far from it as from 0, and below
    found = verdict(asked(claims=[BETTER | {"by": 0.06}]), ends(GAPS))
    assert found.p == pytest.approx(P)
    assert found.outcome == "does not hold"


def test_a_margin_below_zero_claims_that_an_arm_is_not_worse_by_so_much():
    # -.001 against -.01: t = .009 / (.001/sqrt(3)) = 15.59, p = 1 - t / sqrt(t**2 + 2) = 0.004
    found = verdict(asked(claims=[BETTER | {"by": -0.01}]), ends([-0.002, -0.001, 0.0]))
    assert found.p == pytest.approx(1 - math.sqrt(243 / 245))
    assert found.outcome == "holds"
    assert found.sentence == (
        "On hard/sampled/reward eva ends 0.001 below new, where a loss of less than 0.010 is "
        "claimed (95 % interval 0.000 to 0.002 below, 3 pairs, p = 0.004 corrected): holds."
    )
    found = verdict(asked(claims=[BETTER | {"by": -0.01}]), ends([-gap for gap in GAPS]))
    assert found.outcome == "not resolved"  # .03 below: p = 0.074
    found = verdict(asked(claims=[BETTER | {"by": -0.01}]), ends([-0.039, -0.04, -0.041]))
    assert found.outcome == "does not hold"


def test_differences_without_any_spread_resolve_nothing():
    found = verdict(asked(claims=[BETTER]), ends([0.25] * 3, base=0.5))
    assert (found.p, found.corrected, found.outcome) == (None, None, "not resolved")
    assert found.sentence == (
        "On hard/sampled/reward eva ends 0.250 above new (3 pairs, all with the same difference, "
        "so there is no test): not resolved."
    )
    tied = verdict(asked(claims=[BETTER | {"by": 0.02}]), ends([0.0] * 3))
    assert (tied.p, tied.outcome) == (None, "not resolved")
    assert tied.sentence == (
        "On hard/sampled/reward eva ends level with new, where more than 0.020 is claimed (3 "
        "pairs, all with the same difference, so there is no test): not resolved."
    )


def test_small_differences_are_told_with_the_digits_that_they_need():
    # a hundredth of GAPS: mean .0003
    found = verdict(asked(claims=[BETTER]), ends([gap / 100 for gap in GAPS], base=0.0))
    assert found.outcome == "holds"
    assert found.sentence == (
        "On hard/sampled/reward eva ends 0.00030 above new (95 % interval 0.00020 to 0.00040 "
        "above, 3 pairs, p = 0.035 corrected): holds."
    )
    # and so are those that lie near the margin: .0203 against .02
    near = [0.02 + gap / 100 for gap in GAPS]
    found = verdict(asked(claims=[BETTER | {"by": 0.02}]), ends(near, base=0.0))
    assert found.sentence == (
        "On hard/sampled/reward eva ends 0.02030 above new, where more than 0.02000 is claimed "
        "(95 % interval 0.02020 to 0.02040 above, 3 pairs, p = 0.035 corrected): holds."
    )
    # a margin is told whole
    found = verdict(asked(claims=[BETTER | {"by": 0.0125}]), ends(GAPS))
    assert "where more than 0.0125 is claimed" in found.sentence


def test_the_ends_of_an_interval_say_on_which_side_they_lie():
    # -.03, 0, .024: mean -.002; resampled means lie between -.03 and .024
    found = verdict(asked(claims=[BETTER]), ends([-0.03, 0.0, 0.024], base=0.0))
    assert (
        "ends 0.002 below new (95 % interval 0.030 below to 0.024 above, 3 pairs" in found.sentence
    )


def test_pairs_of_one_seed_are_averaged_over_pooled_levels():
    study = asked(
        factors={"theta_0": {"a": {}, "b": {}}}, pool=["theta_0"], claims=[BETTER | {"by": 0.005}]
    )
    # gaps of the seeds: .01 + .03, .02 + .04, .03 + .05, halved: GAPS
    played = [
        one
        for level, more in (("a", -0.01), ("b", 0.01))
        for arm, gaps in (("new", [0.0] * 3), ("eva", [gap + more for gap in GAPS]))
        for one in column(arm, gaps, place={"theta_0": level})
    ]
    found = verdict(study, played)
    # .03 against .005: t = .025/(.01/sqrt(3)) = 2.5 sqrt(3), df = 2: p = 1 - sqrt(18.75/20.75)
    assert found.p == pytest.approx(1 - math.sqrt(18.75 / 20.75))
    assert "0.020 to 0.040 above, 3 seeds x 2 levels of theta_0, p = 0.049" in found.sentence
    # given a run that failed: its seed is the other level alone; given both, it is gone
    found = verdict(study, played[1:])
    assert "3 seeds x 2 levels of theta_0 (1 in part)" in found.sentence
    found = verdict(study, [one for one in played if one.seed > 1])
    assert "2 of 3 seeds x 2 levels of theta_0, p" in found.sentence
    alone = asked(
        **{**study.model_dump(include={"factors", "pool"}), "claims": [BETTER], "seeds": [1]}
    )
    assert "(1 seed x 2 levels of theta_0): not" in verdict(alone, played).sentence


def test_claims_that_nothing_speaks_of_count_for_the_correction():
    # given one claim with a p, one without spread, one with one pair and one without any
    arms = {"new": {}, "flat": {}, "one": {}, "none": {}, "eva": {}}
    claims_ = [BETTER | {"than": than} for than in ("new", "flat", "one", "none")]
    played = ends(GAPS, base=0.0)
    flat = [gap - 0.01 for gap in GAPS]
    played += column("flat", flat) + column("one", [0.0, None, None])
    found, unjudged = judged(asked(arms=arms, claims=claims_), played)
    assert (len(found), len(unjudged)) == (3, 1)
    assert [one.corrected for one in found] == [pytest.approx(4 * P), None, None]
    assert {one.outcome for one in found} == {"not resolved"}


def test_one_pair_resolves_nothing():
    other = {"better": "eva", "than": "static", "on": HARD}
    study = asked(arms={"new": {}, "static": {}, "eva": {}}, claims=[BETTER, other])
    played = ends(GAPS) + column("static", [0.1, None, None])
    (first, second), _ = judged(study, played)
    assert first.corrected == pytest.approx(2 * P)
    assert (second.p, second.corrected, second.outcome) == (None, None, "not resolved")
    assert second.sentence == (
        "On hard/sampled/reward eva ends 0.320 above static (1 of 3 pairs): not resolved."
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
    # hard: .25 and .35; x0: -.25 and -.35; easy: the same on both seeds
    new = dict(zip(metrics, [0.25, 0.75, 0.5, 0.5, 0.5], strict=True))
    eva = dict(zip(metrics, [0.5, 0.5, 0.5, 0.1, 0.1], strict=True))
    more = eva | {HARD: 0.6, X0: 0.4}
    played = [
        run(arm, seed, result(end))
        for arm, seed, end in (("new", 1, new), ("new", 2, new), ("eva", 1, eva), ("eva", 2, more))
    ]
    # p = 1 - 2/pi arctan(6) = .105: t = .3/.05, one degree of freedom
    assert verdict(study, played).sentence == (
        "On hard/sampled/reward eva ends 0.300 above new (95 % interval 0.250 to 0.350 above, "
        "2 pairs, p = 0.105 corrected): not resolved; not tested: in distribution "
        "(x0/sampled/reward) it ends 0.300 below (0.250 to 0.350 below), on easy/sampled/reward "
        "it ends level."
    )


def test_the_cost_of_one_pair_has_no_interval_and_what_was_not_measured_has_no_cost():
    study = asked(claims=[BETTER], metrics=[HARD, X0, "easy/sampled/reward"], seeds=[1])
    played = [
        run("new", 1, result({HARD: 0.25, X0: 0.5})),
        run("eva", 1, result({HARD: 0.5, X0: 0.25})),
    ]
    assert verdict(study, played).sentence == (
        "On hard/sampled/reward eva ends 0.250 above new (1 pair): not resolved; not tested: in "
        "distribution (x0/sampled/reward) it ends 0.250 below."
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
    assert [one.difference.runs for one in found] == [1, 1, 1]
    assert found[1].sentence.startswith("With reward binary, on hard/sampled/reward eva ends 0.250")


def test_a_verdict_and_its_row_tell_one_interval():
    study = asked(claims=[BETTER])
    results = table.tabled_results(study, ends([0.01, 0.05, 0.02]))
    found, _ = claims.verdicts(study, results)
    assert table.rows(study, results)[-1].values[HARD] == found[0].difference
