"""Budgets: means per run, and a sentence wherever arms did not spend the same."""

import pytest

from eva.study import spent, table
from tests.study.numbers import asked, result, run

EQUAL = {"prompts": 64.0, "samples": 512.0, "steps": 8.0, "tokens": 1000.0, "evolver_calls": 0.0}
THREE = {"static": {}, "new": {}, "eva": {}}


def runs(arm, *counts, place=None):
    """A run for each seed with what it spent beside `EQUAL`; None failed."""
    return [
        run(arm, seed, None if one is None else result({}, spent=EQUAL | one), place=place or {})
        for seed, one in enumerate(counts, 1)
    ]


def told(study, played):
    return spent.unequal(study, table.tabled_results(study, played))


def test_a_budget_is_the_mean_over_runs():
    study = asked()
    played = runs("new", {"tokens": 900.0}, {"tokens": 1100.0}, {"tokens": 1600.0})
    played += runs("eva", None, {"tokens": 1300.0}, {"tokens": 1500.0})
    found = spent.spent(study, table.tabled_results(study, played))
    assert [one.arm for one in found] == ["new", "eva"]
    assert found[0].counts == EQUAL | {"tokens": 1200.0}
    assert found[1].counts == EQUAL | {"tokens": 1400.0}


def test_what_a_run_did_not_count_is_left_out():
    study = asked(seeds=[1, 2])
    played = [run("new", 1, result({}, spent={"steps": 4.0})), run("new", 2, result({}))]
    (found,) = spent.spent(study, table.tabled_results(study, played))
    assert (found.arm, found.counts) == ("new", {"steps": 4.0})


def test_arms_that_spend_the_same_need_no_sentence():
    assert told(asked(), runs("new", *[{}] * 3) + runs("eva", *[{}] * 3)) == []


def test_what_should_be_equal_is_told_first_and_loudly():
    played = runs("new", *[{"steps": 8.0, "other": 1.0}] * 3)
    played += runs("eva", *[{"steps": 12.0, "samples": 513.0, "tokens": 1080.0, "other": 2.0}] * 3)
    # 513/512 = 1.00195; 12/8 = 1.5; 1080/1000 = 1.08; 2/1 = 2
    assert told(asked(), played) == [
        "Not at equal budget: eva draws 1.002 times the samples of new.",
        "Not at equal budget: eva takes 1.50 times the gradient steps of new.",
        "eva generates 1.08 times the tokens of new.",
        "eva spends 2.00 times the other of new.",
    ]


def test_the_greatest_ratio_of_all_pairs_is_told():
    played = runs("static", *[{}] * 3) + runs("new", *[{"tokens": 1250.0}] * 3)
    played += runs("eva", *[{"tokens": 1500.0}] * 3)
    assert told(asked(arms=THREE), played) == ["eva generates 1.50 times the tokens of static."]


def test_who_spends_nothing_is_named():
    played = runs("static", *[{}] * 3) + runs("new", *[{}] * 3)
    played += runs("eva", *[{"evolver_calls": 1434.0}] * 3)
    assert told(asked(arms=THREE), played) == [
        "static and new evolve no prompts, eva evolves 1,434 in a run."
    ]
    played = runs("static", *[{}] * 3) + runs("new", *[{"evolver_calls": 10.0}] * 3)
    played += runs("eva", *[{"evolver_calls": 12.0}] * 3)
    assert told(asked(arms=THREE), played) == [
        "eva evolves 1.20 times the prompts of new; static evolves none."
    ]
    played = runs("static", *[{}] * 3) + runs("new", *[{"evolver_calls": 12.0}] * 3)
    played += runs("eva", *[{"evolver_calls": 12.0}] * 3)
    assert told(asked(arms=THREE), played) == [
        "static evolves no prompts, the others evolve up to 12 in a run."
    ]


def test_arms_are_compared_on_the_runs_that_both_have():
    # given a dear seed that eva lacks: on the others both spend the same
    played = runs("new", {}, {"tokens": 9000.0}, {}) + runs("eva", {}, None, {})
    assert told(asked(), played) == []


def equal(study, played):
    return spent.equal(study, table.tabled_results(study, played))


def test_arms_are_compared_run_by_run():
    # given tokens of which only the sums are the same
    played = runs("new", {"tokens": 900.0}, {"tokens": 1100.0}, {})
    played += runs("eva", {"tokens": 1100.0}, {"tokens": 900.0}, {})
    assert told(asked(), played) == ["new generates up to 1.22 times the tokens of eva in a run."]
    assert equal(asked(), played) == ["prompts", "samples", "steps"]
    # and steps: 8/4 on one seed, 4/8 on another
    played = runs("new", {"steps": 4.0}, {}, {}) + runs("eva", {}, {"steps": 4.0}, {})
    assert told(asked(), played) == [
        "Not at equal budget: new takes up to 2.00 times the gradient steps of eva in a run."
    ]
    assert equal(asked(), played) == ["prompts", "samples"]


def test_of_what_should_be_equal_the_worst_run_is_told():
    # steps 8/8, 8/8, 12/8; tokens on average 3100/3000
    played = runs("new", *[{}] * 3) + runs("eva", {}, {}, {"steps": 12.0, "tokens": 1100.0})
    assert told(asked(), played) == [
        "Not at equal budget: eva takes up to 1.50 times the gradient steps of new in a run.",
        "eva generates 1.03 times the tokens of new.",
    ]


def test_a_run_that_took_no_step_is_told():
    played = runs("new", {}, {"steps": 0.0}, {}) + runs("eva", *[{}] * 3)
    assert told(asked(), played) == [
        "Not at equal budget: eva takes 8 gradient steps in a run in which new takes none."
    ]


def test_equal_is_what_every_arm_is_known_to_spend_the_same_of():
    played = runs("static", *[{}] * 3) + runs("new", *[{}] * 3)
    assert equal(asked(arms=THREE), played + runs("eva", {}, None, None)) == [
        "prompts", "samples", "steps",
    ]  # fmt: skip
    # given an arm without results, or of which no run has a fellow
    assert equal(asked(arms=THREE), played) == []
    apart = runs("new", {}, None, None) + runs("eva", None, {}, {})
    assert equal(asked(), apart) == []
    # and one arm is equal to none
    assert equal(asked(arms={"eva": {}}, against=None), runs("eva", *[{}] * 3)) == []


def test_what_is_not_known_to_be_equal_is_told():
    played = runs("static", *[{}] * 3) + runs("new", *[{}] * 3)
    assert told(asked(arms=THREE), played) == ["What eva spends is not known: it has no results."]
    apart = runs("new", {}, None, None) + runs("eva", None, {}, {})
    assert told(asked(), apart) == [
        "Of new and eva no two runs on the same seed can be compared: prompts, samples and "
        "gradient steps."
    ]
    some = [run(arm, 1, result({}, spent={"prompts": 8.0} | more))
            for arm, more in (("new", {"steps": 1.0}), ("eva", {}))]  # fmt: skip
    assert told(asked(seeds=[1]), some) == [
        "Not counted in any arm: samples.", "Not counted in every arm: gradient steps.",
    ]  # fmt: skip
    assert told(asked(arms={"eva": {}}, against=None), runs("eva", {}, None, None)) == []
    assert told(asked(), []) == []


def test_the_place_of_an_arm_without_results_is_told():
    study = asked(factors={"size": {"8": {}, "16": {}}}, seeds=[1])
    played = [one for size in ("8", "16") for one in runs("new", {}, place={"size": size})]
    played += runs("eva", {}, place={"size": "8"})
    assert told(study, played) == [
        "What eva spends with size 16 is not known: it has no results there."
    ]


def test_the_place_of_the_greatest_ratio_is_told_where_there_are_several():
    factors = {"size": {"8": {}, "16": {}}}
    study = asked(factors=factors, seeds=[1])
    played = [
        one
        for size, tokens in (("8", 1100.0), ("16", 1200.0))
        for arm, more in (("new", 1000.0), ("eva", tokens))
        for one in runs(arm, {"tokens": more}, place={"size": size})
    ]
    assert told(study, played) == ["eva generates 1.20 times the tokens of new with size 16."]


@pytest.mark.parametrize(
    ("more", "times"), [(1.004, "1.004"), (1.00001, "1.00001"), (1 + 1e-9, "1.000001")]
)
def test_a_ratio_is_told_apart_from_one(more, times):
    played = runs("new", {"steps": 1.0}) + runs("eva", {"steps": more})
    assert told(asked(seeds=[1]), played) == [
        f"Not at equal budget: eva takes {times} times the gradient steps of new."
    ]
