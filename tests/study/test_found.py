"""Findings: everything of a study, from its runs alone."""

import random

from eva.findings import Findings
from eva.study.found import findings
from tests.study.numbers import HARD, X0, asked, result, run

STUDY = asked(
    factors={"theta_0": {"a": {}, "b": {}}, "size": {"8": {}, "16": {}}},
    pool=["theta_0"],
    axes=["size"],
    tune={"seeds": [8, 9], "grid": {"n": [2, 3]}, "by": HARD, "over": ["size"]},
    metrics=[HARD, X0],
    curves=[HARD, "round/words"],
    claims=[{"better": "eva", "than": "new", "on": HARD}],
)


def numbers(arm, seed, place):
    """What a run measured: eva is better, whatever else."""
    end = 0.5 + (0.1 + 0.01 * seed) * (arm == "eva") + 0.02 * (place["size"] == "16")
    return result(
        {HARD: end, X0: 1 - end},
        start={HARD: 0.4, X0: 0.5},
        rounds={0: {"words": 3.0 + seed}, 1: {"words": 4.0 + seed}},
        spent={"prompts": 8.0, "tokens": 100.0 * (1 + (arm == "eva"))},
    )


def played():
    cells = []
    for size in ("8", "16"):
        place = {"theta_0": "a", "size": size}
        cells += [
            run(arm, seed, numbers(arm, seed, place), place=place, use="tune", setting={"n": n})
            for n in (2, 3) for arm in ("new", "eva") for seed in (8, 9)
        ]  # fmt: skip
        for level in "ab":
            place = {"theta_0": level, "size": size}
            cells += [
                run(arm, seed, numbers(arm, seed, place), place=place, setting={"n": 2})
                for arm in ("new", "eva") for seed in (1, 2, 3)
            ]  # fmt: skip
    return cells


def test_findings_hold_all_parts_of_the_study():
    found = findings(STUDY, played())
    assert (found.name, found.question, found.arms) == ("hand", "Is it?", ("new", "eva"))
    assert found.factors == {"theta_0": ("a", "b"), "size": ("8", "16")}
    assert (found.pooled, found.axes) == (("theta_0",), ("size",))
    assert found.metrics == (HARD, X0)
    # theta_0, new, eva, eva - new at each size
    assert [row.place["size"] for row in found.rows] == ["8"] * 4 + ["16"] * 4
    assert [one.counts["tokens"] for one in found.spent] == [100.0, 200.0] * 2
    assert found.unequal == (
        "eva generates 2.00 times the tokens of new with size 8.",
        "Not counted in any arm: samples and gradient steps.",
    )
    assert found.equal == ("prompts",)
    assert [(one.outcome, one.difference.runs) for one in found.verdicts] == [("holds", 3)] * 2
    assert len(found.lines) == 2 * 2 * 2  # sizes, metrics, arms
    assert len(found.tuned) == 2 * 2 * 2  # sizes, arms, settings
    assert found.tuned_by == HARD
    assert len(found.cells) == 2 * (8 + 12)
    assert found.cells[0].path == "cells/new--a--8/as-is/seed8"


def test_findings_do_not_depend_on_the_order_in_which_runs_ended_and_can_be_read_again():
    cells = played()
    found = findings(STUDY, cells)
    mixed = cells.copy()
    random.Random(3).shuffle(mixed)
    again = findings(STUDY, mixed)
    again = again.model_copy(update={"cells": found.cells})
    assert again.model_dump_json() == found.model_dump_json()
    assert Findings.model_validate_json(found.model_dump_json()) == found


def test_a_study_of_which_everything_failed_has_findings_too():
    study = asked(claims=[{"better": "eva", "than": "new", "on": HARD}], curves=[HARD])
    found = findings(study, [run(arm, seed, None) for arm in study.arms for seed in study.seeds])
    assert [row.values for row in found.rows] == [{}, {}, {}]
    assert (found.spent, found.unequal, found.verdicts, found.lines) == ((), (), (), ())
    assert len(found.unjudged) == 1
    assert found.tuned_by is None
    assert [cell.failed for cell in found.cells] == ["it broke"] * 6
