"""Which cells a study has, and what is played in each."""

import doctest
from dataclasses import replace
from pathlib import Path

import pytest

from eva.errors import RecipeError
from eva.study import Study, cells
from eva.study.cells import Site, changed, filled, table_cells, tuning_cells
from tests.study.small import TUNED, small

FAST = {("static", ()): {"n": 4}, ("eva", ()): {"n": 3}}


def site(path: Path) -> Site:
    return Site(path / "home", path, {"theta_b": path / "b"})


def table(study: Study, path: Path):
    everything = {("static", ()): {}, ("eva", ()): {}}
    return table_cells(study, site(path), everything)


def test_the_examples_of_the_page_hold():
    assert doctest.testmod(cells).failed == 0


def test_a_study_that_is_stopped_halfway_has_pairs(tmp_path):
    found = [cell.within for cell in table(small(), tmp_path)]
    assert found == [
        "cells/static/as-is/seed1",
        "cells/eva/as-is/seed1",
        "cells/static/as-is/seed2",
        "cells/eva/as-is/seed2",
    ]


def test_every_arm_tries_every_setting_on_the_tuning_seeds_alone(tmp_path):
    found = tuning_cells(small(**TUNED), site(tmp_path))
    assert [cell.within for cell in found] == [
        "cells/static--fast/n=3/seed7",
        "cells/eva--fast/n=3/seed7",
        "cells/static--fast/n=4/seed7",
        "cells/eva--fast/n=4/seed7",
    ]
    assert {cell.use for cell in found} == {"tune"}
    assert tuning_cells(small(), site(tmp_path)) == []


def test_the_table_takes_the_chosen_settings_at_every_place(tmp_path):
    found = table_cells(small(**TUNED), site(tmp_path), FAST)
    assert {(cell.arm, cell.place["gain"], cell.recipe.n) for cell in found} == {
        ("static", "fast", 4),
        ("static", "slow", 4),
        ("eva", "fast", 3),
        ("eva", "slow", 3),
    }
    assert {(cell.place["gain"], cell.recipe.learner.lr) for cell in found} == {
        ("fast", 1.0),
        ("slow", 0.5),
    }
    assert {cell.recipe.seed for cell in found} == {1, 2}
    only = {("eva", ()): {}}
    assert {cell.arm for cell in table_cells(small(**TUNED), site(tmp_path), only)} == {"eva"}


def test_changes_are_laid_over_each_other_in_order(tmp_path):
    study = small(
        change={"n": 2, "chunk": 2, "rounds": 2, "sampling": {"temperature": 0.9}},
        factors={"a": {"x": {"chunk": 3, "n": 3}}, "b": {"p": {"n": 4, "rounds": 4}}},
        arms={"eva": {"n": 5}, "static": {"creator": None, "rounds": 5}},
        tune={"seeds": [7], "grid": [{"n": 6}], "by": "x"},
        seeds=[1],
    )
    eva, static = (cell.recipe for cell in tuning_cells(study, site(tmp_path)))
    assert (eva.n, eva.chunk, eva.rounds, eva.sampling.temperature) == (6, 3, 4, 0.9)
    assert (static.rounds, static.creator, static.name) == (5, None, "static--x--p")
    assert eva.creator is not None


def test_the_base_is_that_of_the_arm_else_of_the_last_level_else_of_the_study(tmp_path):
    (tmp_path / "own.yaml").write_text("base: toy\nn: 7\n")
    study = small(
        factors={"a": {"x": {"base": "toy-online"}}, "b": {"p": {}, "q": {"base": "toy"}}},
        arms={"eva": {}, "own": {"base": "own.yaml"}},
        seeds=[1],
        against=None,
    )
    found = {cell.within.split("/")[1]: cell.recipe for cell in table_cells(
        study, site(tmp_path), {("eva", ()): {}, ("own", ()): {}}
    )}  # fmt: skip
    assert found["eva--x--p"].learner.kind == "toy_online"
    assert found["eva--x--q"].learner.kind == "toy"
    assert found["own--x--p"].n == found["own--x--q"].n == 7


def test_paths_are_relative_to_the_study_and_folders_have_names(tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    here = Path(tmp_path)
    fields = changed("toy", [{"prompts": {"kind": "jsonl", "path": "x.jsonl"}}], here, {})
    assert fields["prompts"]["path"] == str(tmp_path / "x.jsonl")
    made = {"theta_b": Path("/made/b")}
    change = {"policy": {"model": "{theta_b}"}, "sets": ["{theta_b}/x", 3]}
    fields = changed("toy", [change], here, made)
    assert fields["policy"]["model"] == "/made/b"
    assert fields["sets"] == ["/made/b/x", 3]


def test_braces_that_belong_to_a_part_stay(tmp_path):
    run = ["train", "{pairs}", "{theta_b}"]
    assert filled({"run": run}, {"theta_b": Path("/b")}) == {"run": ["train", "{pairs}", "/b"]}
    theirs = {
        "operators": {"deepen {prompt}": 1, "text": "rewrite {prompt}"},
        "args": {"text": "{question}", "model": "{base}", "inner": {"path": "{x}"}},
        "body": {"path": "{y}"},
        "template": "write {n} prompts",
        "rubric": "{prompt}\n{response}",
    }
    assert filled(theirs, {"theta_b": Path("/b")}) == theirs
    assert filled({"args": {"path": "{8b}/x"}}, {"8b": Path("/b")}) == {"args": {"path": "/b/x"}}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"change": {"policy": {"model": "{theta_c}"}}}, "prepare has no 'theta_c'; did you mean"),
        ({"arms": {"eva": {"base": 3}, "static": {}}}, "base is 3; expected a path or the name"),
        ({"base": "toi"}, "there is no recipe 'toi'"),
        ({"change": {"seed": 3}}, "a change sets seed"),
        ({"change": {"round": 3}}, "small: static, as-is: unknown key 'round'; did you mean"),
        ({"arms": {"eva": {}, "Eva": {}, "static": {}}}, "upper and lower case"),
        ({"arms": {"static": {}, "eva": {}, "e" * 201: {}}}, "has a name of more than 200"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_played(tmp_path, keys, said):
    study = small(**keys)
    chosen = {(arm, ()): {} for arm in study.arms}
    with pytest.raises(RecipeError, match=said):
        table_cells(study, site(tmp_path), chosen)


def test_without_anything_prepared_a_name_in_braces_is_refused(tmp_path):
    study = small(change={"policy": {"model": "{theta_b}"}})
    with pytest.raises(RecipeError, match="prepare has no 'theta_b'; nothing is prepared"):
        table_cells(study, replace(site(tmp_path), folders={}), {("eva", ()): {}})
