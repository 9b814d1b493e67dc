"""Tables: rows, differences, curves and grids, each number by hand."""

import math
import random

import pytest

from eva.findings import Measured
from eva.study import table
from tests.study.numbers import HARD, X0, asked, column, result, run

LEVELS = {"theta_0": {"a": {}, "b": {}}}


def rows(study, played):
    return table.rows(study, table.tabled_results(study, played))


def named(found):
    return [row.arm if row.minus is None else f"{row.arm}-{row.minus}" for row in found]


def test_a_row_is_the_mean_over_seeds_with_its_error():
    # .1, .2, .6: mean .9/3; squares of deviations .04 + .01 + .09 = .14; error sqrt(.14/6)
    found = rows(asked(against=None), column("new", [0.1, 0.2, 0.6]) + column("eva", [1, 1, 1]))
    assert named(found) == ["new", "eva"]
    new = found[0].values[HARD]
    assert (new.mean, new.runs, new.missing) == (pytest.approx(0.3), 3, 0)
    assert new.error == pytest.approx(math.sqrt(0.14 / 6))
    # and what never varies has no spread at all
    assert found[1].values[HARD] == Measured(mean=1, error=0, low=1, high=1, runs=3)


def test_an_interval_holds_the_middle_of_the_resampled_means():
    # of 0 and 1: means 0, 1/2, 1 with probability 1/4, 1/2, 1/4, and 2.5 % < 1/4
    assert table.measured([0.0, 1.0]) == Measured(mean=0.5, error=0.5, low=0, high=1, runs=2)


def test_a_difference_is_one_of_runs_on_the_same_seed():
    # eva - new by seed: .1, .2, .6, as above, however far apart the seeds lie
    played = column("new", [5.0, 0.0, -3.0]) + column("eva", [5.1, 0.2, -2.4])
    gap = rows(asked(), played)[-1]
    assert (gap.arm, gap.minus) == ("eva", "new")
    assert gap.values[HARD].mean == pytest.approx(0.3)
    assert gap.values[HARD].error == pytest.approx(math.sqrt(0.14 / 6))


def test_a_failed_run_is_left_out_with_its_pair_and_counted():
    # eva lacks seed 2, new lacks seed 3: one pair is left, .5 - .4
    played = column("new", [0.4, 0.6, None]) + column("eva", [0.5, None, 0.9])
    new, eva, gap = rows(asked(), played)
    assert (new.values[HARD].mean, new.values[HARD].missing) == (0.5, 1)
    assert (eva.values[HARD].mean, eva.values[HARD].missing) == (0.7, 1)
    one = gap.values[HARD]
    assert (one.mean, one.runs, one.missing) == (pytest.approx(0.1), 1, 2)
    assert (one.error, one.low, one.high) == (None, None, None)


def test_an_arm_of_which_nothing_is_left_keeps_its_row():
    found = rows(asked(), column("new", [0.4, 0.5, 0.6]) + column("eva", [None] * 3))
    assert named(found) == ["new", "eva", "eva-new"]
    assert [row.values for row in found[1:]] == [{}, {}]


def test_what_was_not_measured_is_missing_and_a_nan_is_no_measurement():
    study = asked(metrics=[HARD, X0], seeds=[1, 2])
    played = [
        run("new", 1, result({HARD: 0.5})),
        run("new", 2, result({HARD: math.nan, "x0/greedy/reward": 0.2})),
        *column("eva", [0.5, 0.5]),
    ]
    new = rows(study, played)[0]
    assert set(new.values) == {HARD}
    assert (new.values[HARD].runs, new.values[HARD].missing) == (1, 1)


def test_a_metric_of_rounds_is_taken_at_the_last_one():
    study = asked(metrics=["round/words"], seeds=[1])
    rounds = {0: {"words": 3.0}, 3: {"words": 7.0}}
    played = [run("new", 1, result({}, rounds=rounds)), run("eva", 1, result({}))]
    new, eva, _ = rows(study, played)
    assert new.values["round/words"].mean == 7.0
    assert eva.values == {}


def test_pooled_levels_are_paired_with_themselves_and_averaged_in_each_seed():
    study = asked(factors=LEVELS, pool=["theta_0"], seeds=[1, 2])
    played = [
        *column("new", [0.1, 0.2], place={"theta_0": "a"}),
        *column("new", [0.5, 0.6], place={"theta_0": "b"}),
        *column("eva", [0.2, 0.3], place={"theta_0": "a"}),
        *column("eva", [0.8, 1.1], place={"theta_0": "b"}),
    ]
    new, eva, gap = rows(study, played)
    assert [row.place for row in (new, eva, gap)] == [{}, {}, {}]
    # seed 1: (.1 + .5)/2 = .3; seed 2: (.2 + .6)/2 = .4; error |.4 - .3|/2
    assert (new.values[HARD].mean, new.values[HARD].runs) == (pytest.approx(0.35), 2)
    assert new.values[HARD].error == pytest.approx(0.05)
    # seed 1: (.1 + .3)/2 = .2; seed 2: (.1 + .5)/2 = .3; error |.3 - .2|/2
    assert (gap.values[HARD].mean, gap.values[HARD].runs) == (pytest.approx(0.25), 2)
    assert gap.values[HARD].error == pytest.approx(0.05)
    assert (gap.values[HARD].low, gap.values[HARD].high) == pytest.approx((0.2, 0.3))
    # and nothing depends on the order in which the runs ended
    random.Random(1).shuffle(played)
    assert rows(study, played) == [new, eva, gap]


def test_of_a_seed_only_levels_that_both_arms_have_are_averaged():
    # given eva without seed 1 at b, and no pair at all of seed 3
    study = asked(factors=LEVELS, pool=["theta_0"])
    played = [
        *column("new", [0.1, 0.2, None], place={"theta_0": "a"}),
        *column("new", [0.5, 0.6, 0.7], place={"theta_0": "b"}),
        *column("eva", [0.2, 0.3, 0.4], place={"theta_0": "a"}),
        *column("eva", [None, 0.8, None], place={"theta_0": "b"}),
    ]
    new, eva, gap = (row.values[HARD] for row in rows(study, played))
    # new: .3, .4, .7; eva: .2, (.3 + .8)/2 = .55, .4; gap: .1 at a alone, (.1 + .2)/2 = .15
    assert (new.mean, new.runs, new.missing, new.partial) == (pytest.approx(1.4 / 3), 3, 0, 1)
    assert (eva.mean, eva.runs, eva.missing, eva.partial) == (pytest.approx(1.15 / 3), 3, 0, 2)
    assert (gap.mean, gap.runs, gap.missing, gap.partial) == (pytest.approx(0.125), 2, 1, 1)


def test_pooled_levels_that_share_a_seed_are_no_evidence_of_their_own():
    # given three levels that repeat what the seed did: .02, .03, .04 as without levels
    study = asked(factors={"theta_0": {"a": {}, "b": {}, "c": {}}}, pool=["theta_0"])
    played = [
        one
        for level in "abc"
        for arm, ends in (("new", [0.18, 0.17, 0.16]), ("eva", [0.2] * 3))
        for one in column(arm, ends, place={"theta_0": level})
    ]
    gap = rows(study, played)[-1].values[HARD]
    # t = 3 sqrt(3), two degrees of freedom: p = 1 - sqrt(27/29)
    assert table.p_of(gap, 0.0) == pytest.approx(1 - math.sqrt(27 / 29))


def test_differences_without_spread_have_no_p():
    # .3 - .2 and .2 - .1 differ in the last bit alone
    for gaps, value in (
        ([0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3], 0.0), ([0.0] * 3, 0.0), ([0.0] * 3, 0.02), ([0.1], 0.0),
    ):  # fmt: skip
        found = table.measured(gaps)
        assert found
        assert table.p_of(found, value) is None


def test_every_combination_of_other_levels_has_a_table():
    study = asked(
        factors={"reward": {"graded": {}, "binary": {}}, "size": {"8": {}, "16": {}}},
        arms={"eva": {}},
        seeds=[1],
        against=None,
    )
    places = [{"reward": r, "size": s} for r in ("graded", "binary") for s in ("8", "16")]
    ends = [0.1, 0.2, 0.3, 0.4]
    played = [
        one
        for place, end in zip(places, ends, strict=True)
        for one in column("eva", [end], place=place)
    ]
    found = rows(study, played)
    assert [row.place for row in found] == places
    assert [row.values[HARD].mean for row in found] == ends


def start(arm, seed, first, **keys):
    return run(arm, seed, result({HARD: 0.9}, start={HARD: first}), **keys)


def test_theta_0_is_one_run_for_each_that_there_is():
    # given a shared by all seeds and arms, and b likewise: (.4 + .6)/2, and no seed differs
    study = asked(factors=LEVELS, pool=["theta_0"])
    played = [
        start(arm, seed, {"a": 0.4, "b": 0.6}[level], place={"theta_0": level})
        for arm in study.arms
        for seed in study.seeds
        for level in "ab"
    ]
    theta = rows(study, played)[0]
    assert theta.arm == "theta_0"
    assert (theta.values[HARD].mean, theta.values[HARD].runs) == (0.5, 1)
    assert (theta.values[HARD].error, theta.values[HARD].missing) == (None, 0)


def test_theta_0_that_is_measured_anew_on_each_seed_is_a_mean_over_seeds():
    played = [start(arm, seed, seed / 10) for arm in ("new", "eva") for seed in (1, 2, 3)]
    theta = rows(asked(), played)[0]
    assert (theta.arm, theta.values[HARD].runs) == ("theta_0", 3)
    assert theta.values[HARD].mean == pytest.approx(0.2)


def test_arms_that_begin_differently_share_no_theta_0():
    played = [start("new", seed, 0.4) for seed in (1, 2, 3)]
    played += [start("eva", seed, 0.5) for seed in (1, 2, 3)]
    assert named(rows(asked(), played)) == ["new", "eva", "eva-new"]


def test_theta_1_is_shown_where_arms_share_it_and_go_on():
    def evals(arm, shared):
        found = result({HARD: 0.9}, start={HARD: 0.4})
        return found.model_copy(update={"evals": found.evals | {1: {HARD: shared}}})

    study = asked(seeds=[1, 2])
    both = [run(arm, s, evals(arm, s / 10)) for arm in study.arms for s in study.seeds]
    found = rows(study, both)
    assert named(found)[:3] == ["theta_0", "theta_1", "new"]
    assert found[1].values[HARD].mean == pytest.approx(0.15)
    # given one run that ends at theta_1, or without it
    ends = result({}).model_copy(update={"evals": {0: {HARD: 0.4}, 1: {HARD: 0.1}}})
    assert "theta_1" not in named(rows(study, [run("new", 1, ends), *both[1:]]))
    assert "theta_1" not in named(rows(study, [start("new", 1, 0.4), *both[1:]]))
    # given runs of one arm alone, or a seed of each that the other lacks: nobody knows
    assert "theta_1" not in named(rows(study, both[:2]))
    assert named(rows(study, both[:2]))[0] == "theta_0"
    assert "theta_1" not in named(rows(study, [both[0], both[3]]))
    # and a study of one arm shares nothing
    alone = asked(arms={"eva": {}}, against=None, seeds=[1, 2])
    assert named(rows(alone, both[2:])) == ["theta_0", "eva"]


def test_metrics_of_rounds_have_no_theta_0():
    study = asked(metrics=["round/words"])
    played = [start(arm, seed, 0.4) for arm in study.arms for seed in study.seeds]
    assert "theta_0" not in named(rows(study, played))


THREE = {"new": {}, "static": {}, "eva": {}}


def leads(study, played):
    return {row.arm: row.leads for row in rows(study, played) if row.minus is None and row.leads}


def test_an_arm_leads_where_it_is_above_each_other_one_beyond_noise():
    # eva - new: 1.0, 1.1, 1.2, mean 1.1, error .1/sqrt(3), t = 19.05; df = 2:
    # p = 1 - t/sqrt(t^2 + 2) = .0027; eva - static: the same; Holm doubles it: .0055
    study = asked(arms=THREE)
    low = [0.2, 0.1, 0.0]
    played = column("new", low) + column("static", low) + column("eva", [1.2, 1.2, 1.2])
    assert leads(study, played) == {"eva": (HARD,)}
    # given one of the others without a run: nobody knows
    assert leads(study, column("static", low) + column("eva", [1.2] * 3)) == {}
    # given one of the others as good but for noise
    near = column("new", low) + column("static", [1.1, 1.3, 1.1]) + column("eva", [1.2] * 3)
    assert leads(study, near) == {}


def test_the_correction_for_other_arms_can_make_the_difference():
    # eva - new: .02, .03, .04: t = 3 sqrt(3); p = 1 - t/sqrt(t^2 + 2) = 1 - sqrt(27/29) = .0351
    played = column("new", [0.18, 0.17, 0.16]) + column("eva", [0.2, 0.2, 0.2])
    assert leads(asked(), played) == {"eva": (HARD,)}
    # twice that is above .05
    played += column("static", [0.18, 0.17, 0.16])
    assert leads(asked(arms=THREE), played) == {}


def test_nobody_leads_by_one_seed_by_a_tie_or_alone():
    assert leads(asked(seeds=[1]), column("new", [0.1]) + column("eva", [0.9])) == {}
    assert leads(asked(), column("new", [0.1] * 3) + column("eva", [0.1] * 3)) == {}
    alone = asked(arms={"eva": {}}, against=None)
    assert leads(alone, column("eva", [0.1, 0.2, 0.3])) == {}
    assert leads(asked(), []) == {}


@pytest.mark.parametrize("metric", ["round/words", "hard/sampled/missing"])
def test_nobody_leads_where_more_is_not_better(metric):
    def end(value):
        return result({metric: value}, rounds={3: {"words": value}})

    played = [run("new", seed, end(0.1)) for seed in (1, 2, 3)]
    played += [run("eva", seed, end(0.9)) for seed in (1, 2, 3)]
    assert leads(asked(metrics=[metric]), played) == {}


def test_curves_are_means_at_each_round():
    study = asked(curves=["round/words", HARD], seeds=[1, 2])

    def words(*found):
        return result({HARD: 0.5}, start={HARD: 0.1}, rounds={t: {"words": w} for t, w in found})

    played = [
        run("new", 1, words((0, 3.0), (1, 4.0))),
        run("new", 2, words((0, 5.0))),
        run("eva", 1, None),
        run("eva", 2, None),
    ]
    found = table.lines(study, table.tabled_results(study, played))
    assert [(line.arm, line.metric) for line in found] == [("new", "round/words"), ("new", HARD)]
    first = found[0].points
    assert (first[0].mean, first[0].error, first[0].runs) == (4.0, 1.0, 2)
    assert (first[1].mean, first[1].error, first[1].missing) == (4.0, None, 1)
    assert {t: point.mean for t, point in found[1].points.items()} == {0: 0.1, 4: 0.5}


def test_curves_average_pooled_levels_in_each_seed_first():
    study = asked(factors=LEVELS, pool=["theta_0"], curves=["round/words"], seeds=[1, 2])
    played = [
        run("eva", seed, result({}, rounds={0: {"words": w}}), place={"theta_0": level})
        for level, seed, w in (("a", 1, 1.0), ("b", 1, 3.0), ("a", 2, 4.0))
    ]
    (line,) = table.lines(study, table.tabled_results(study, played))
    # seed 1: (1 + 3)/2; seed 2: 4 at a alone
    point = line.points[0]
    assert (point.mean, point.error, point.runs, point.partial) == (3.0, 1.0, 2, 1)


GRID = {"seeds": [8, 9], "grid": {"n": [2, 3]}, "by": HARD}


def tries(arm, by_setting, place=None):
    """Tuning runs on seeds 8 and 9 by n."""
    return [
        run(arm, seed, None if end is None else result({HARD: end}), use="tune",
            setting={"n": n}, place=place or {})
        for n, ends in by_setting.items()
        for seed, end in zip((8, 9), ends, strict=True)
    ]  # fmt: skip


def test_the_setting_with_the_greatest_mean_is_chosen():
    study = asked(tune=GRID)
    # new: .3 against .4; eva: .5 against .5, and the first of the grid wins
    played = tries("new", {2: [0.1, 0.5], 3: [0.4, 0.4]})
    played += tries("eva", {3: [0.5, 0.5], 2: [0.4, 0.6]})
    assert table.chosen(study, played) == {("new", ()): {"n": 3}, ("eva", ()): {"n": 2}}
    found = table.tuned(study, played)
    assert [(t.arm, t.setting["n"], t.is_chosen) for t in found] == [
        ("new", 2, False), ("new", 3, True), ("eva", 2, True), ("eva", 3, False),
    ]  # fmt: skip
    assert found[0].value == table.measured([0.1, 0.5])


def test_within_a_standard_error_of_the_greatest_mean_the_first_of_the_grid_is_chosen():
    # given n = 3 best with .5 +- .1 (of .4 and .6), and n = 2 at .41 or at .39
    for first, n in (([0.41, 0.41], 2), ([0.39, 0.39], 3)):
        played = tries("new", {2: first, 3: [0.4, 0.6]})
        assert table.chosen(asked(tune=GRID | {"within": 1}), played) == {("new", ()): {"n": n}}
        assert table.chosen(asked(tune=GRID), played) == {("new", ()): {"n": 3}}
    # given one seed there is no error, and the greatest mean wins
    alone = asked(tune={**GRID, "seeds": [8], "within": 1})
    played = [one for one in tries("new", {2: [0.4, 0], 3: [0.5, 0]}) if one.seed == 8]
    assert table.chosen(alone, played) == {("new", ()): {"n": 3}}


def test_runs_of_the_table_choose_nothing():
    study = asked(tune=GRID)
    played = tries("new", {2: [0.1, 0.1], 3: [0.4, 0.4]})
    played += column("new", [9.0, 9.0], setting={"n": 2})
    assert table.chosen(study, played)["new", ()] == {"n": 3}


def test_a_setting_that_failed_more_often_is_no_choice():
    # given n = 2 with one good seed and n = 3 with both
    study = asked(tune=GRID)
    assert table.chosen(study, tries("new", {2: [0.9, None], 3: [0.1, 0.2]})) == {
        ("new", ()): {"n": 3}
    }
    # given every setting with one failure: what is left counts
    assert table.chosen(study, tries("new", {2: [0.9, None], 3: [None, 0.2]})) == {
        ("new", ()): {"n": 2}
    }
    # given nothing at all, there is no choice
    assert table.chosen(study, tries("new", {2: [None, None], 3: [None, None]})) == {}
    assert table.tuned(study, []) == []


def test_arms_are_tuned_anew_in_each_level_that_the_study_names():
    levels = {"size": {"8": {}, "16": {"grid": {"n": [5]}}}, "reward": {"graded": {}, "noisy": {}}}
    study = asked(factors=levels, tune=GRID | {"over": ["size"]}, arms={"new": {}}, against=None)
    played = tries("new", {2: [0.2, 0.2], 3: [0.1, 0.1]}, {"size": "8", "reward": "graded"})
    played += tries("new", {5: [0.7, 0.7]}, {"size": "16", "reward": "graded"})
    assert table.chosen(study, played) == {
        ("new", (("size", "8"),)): {"n": 2},
        ("new", (("size", "16"),)): {"n": 5},
    }
    assert [(t.place, t.setting["n"]) for t in table.tuned(study, played)] == [
        ({"size": "8"}, 2), ({"size": "8"}, 3), ({"size": "16"}, 5),
    ]  # fmt: skip


def test_without_a_grid_every_arm_is_as_it_is():
    assert table.chosen(asked(), []) == {("new", ()): {}, ("eva", ()): {}}
    assert table.tuned(asked(), []) == []
