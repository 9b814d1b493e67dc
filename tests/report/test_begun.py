import fcntl

import pytest
import yaml

from eva.report.begun import begun, is_kept
from tests.report.fake_runs import write_run
from tests.report.fake_study import findings, write_cell, write_plan, write_study

ONE = {"arms": {"a": {}}, "seeds": [9]}
TWO = {"arms": {"a": {}, "b": {}}, "seeds": [2, 3]}
OWN_GRID = {"f": {"x": {}, "y": {"grid": [{"k": 0}]}}}


@pytest.mark.parametrize(
    ("plan", "runs"),
    [
        (TWO, 2 * 2),
        (ONE | {"factors": {"f": {"x": {}, "y": {}}, "g": {"z": {}}}}, 2),
        # three settings of each arm on one seed, for tuning
        (TWO | {"tune": {"seeds": [1], "grid": [{"x": 1}, {"x": 2}, {"x": 3}]}}, 2 * 2 + 2 * 3),
        # a grid of keys is crossed; it is tried anew in both levels of f, of which y has its own
        (
            ONE
            | {"factors": OWN_GRID}
            | {"tune": {"seeds": [1, 2], "grid": {"p": [1, 2], "q": [3, 4, 5]}, "over": ["f"]}},
            2 + 2 * (2 * 3 + 1),
        ),
        ({"name": "only a name"}, 0),
    ],
)
def test_as_many_runs_are_planned_as_the_study_asks_for(tmp_path, plan, runs):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    assert begun(tmp_path, None).planned == runs


def test_a_folder_without_a_plan_plans_nothing(tmp_path):
    found = begun(tmp_path, None)
    assert (found.planned, found.cells, found.name) == (None, 0, tmp_path.name)


def test_a_run_whose_log_is_held_is_running(tmp_path):
    write_plan(tmp_path)
    run = write_run(tmp_path / "cells/eva/as-is/seed1", "eva", rounds=3, prompts=4)
    (run / "logs").mkdir()
    log = run / "logs/study.log"
    with log.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = begun(tmp_path, None)
        assert (found.running, found.stopped, found.finished) == (1, 0, 0)
        assert found.going[0].said == "3 of 3 rounds; running"
    assert begun(tmp_path, None).stopped == 1


def test_a_run_without_a_recipe_has_no_rounds_and_no_page(tmp_path):
    (tmp_path / "cells/eva/as-is/seed1").mkdir(parents=True)
    going = begun(tmp_path, None, watched=True).going[0]
    assert going.link is None and going.said.startswith("stopped or failed")


def test_runs_that_go_on_have_pages_while_they_are_watched(tmp_path):
    write_run(tmp_path / "cells/eva/lr=0.1/seed1", "eva", rounds=3, prompts=4)
    assert begun(tmp_path, None).going[0].link is None
    link = begun(tmp_path, None, watched=True).going[0].link
    assert link == "cells/eva/lr%3D0.1/seed1/report.html"


def test_a_pruned_run_is_not_kept(tmp_path):
    assert is_kept(write_cell(tmp_path / "whole", "eva"))
    assert not is_kept(write_cell(tmp_path / "pruned", "eva", pruned=True))
    assert not is_kept(tmp_path / "missing")


def test_a_study_is_done_when_its_findings_tell_of_every_run(tmp_path):
    found = findings()
    write_study(tmp_path, found)
    assert begun(tmp_path, found).done
    assert not begun(tmp_path, None).done
    (tmp_path / found.cells[0].path).mkdir(parents=True)  # it failed, and the findings say why
    assert begun(tmp_path, found).done
    (tmp_path / "cells/more/as-is/seed1").mkdir(parents=True)
    assert not begun(tmp_path, found).done
