"""Cells are played in processes of their own, and what became of each is told."""

import json
import shutil

import pytest

from eva.errors import RunDirError
from eva.recipe import load as load_recipe
from eva.start import run_recipe
from eva.study.cells import Site, table_cells, tuning_cells
from eva.study.play import heavy, play, play_cell
from tests.study.small import TUNED, small
from tests.world import contents, recipe

PROBE = {"kind": "python", "call": "tests.study.plug_ins:words"}


def cells_of(study, home):
    chosen = {(arm, ()): {} for arm in study.arms}
    return table_cells(study, Site(home, home, {}), chosen)


def ended(study, cells, home, told=lambda cell, t: None, jobs=2):
    found = {cell.path: cell for cell in play(study, cells, told, here=home, jobs=jobs)}
    return [found[cell.path] for cell in cells]


def test_each_round_of_each_cell_is_told_and_each_cell_has_a_result(tmp_path):
    study = small()
    cells, told = cells_of(study, tmp_path), []
    found = ended(study, cells, tmp_path, lambda cell, t: told.append((cell.within, t)))
    assert sorted(told) == sorted((cell.within, t) for cell in cells for t in (0, 1, 2))
    for cell in found:
        key = "hard/sampled/reward"
        written = json.loads((cell.path / "evals/002.json").read_text())
        assert cell.failed is None
        assert cell.result.evals[2][key] == written[key]
        assert cell.result.cpu_seconds > 0


def test_a_cell_is_what_a_single_run_would_be(tmp_path):
    study = small(keep="all")
    cell = cells_of(study, tmp_path)[1]
    ended(study, [cell], tmp_path)
    alone = tmp_path / "alone"
    list(run_recipe(cell.recipe, alone, here=tmp_path))
    found = contents(cell.path)
    del found["result.json"]
    assert found == contents(alone)


def test_arms_of_a_seed_share_their_first_round(tmp_path):
    study = small(seeds=[1], arms={"static": {"creator": None}, "eva": {"creator": {"start": 1}}})
    a, b = (contents(cell.path) for cell in ended(study, cells_of(study, tmp_path), tmp_path))
    for name in ("rounds/000/lessons.jsonl", "rounds/000/checkpoint.jsonl", "evals/000.json"):
        assert a[name] == b[name]


def test_a_cell_that_fails_is_told_and_the_others_are_played_and_it_is_tried_again(tmp_path):
    own = {"kind": "python", "call": "own:reward"}
    study = small(arms={"static": {"creator": None}, "eva": {"reward": own}}, seeds=[1])
    static, eva = ended(study, cells_of(study, tmp_path), tmp_path)
    assert static.result
    assert eva.result is None
    assert "the module 'own' cannot be imported" in eva.failed

    (tmp_path / "own.py").write_text("from eva.toy import reward\n")
    told = []
    again = ended(study, [static, eva], tmp_path, lambda cell, t: told.append(cell.arm))
    assert [cell.failed for cell in again] == [None, None]
    assert set(told) == {"eva"}


def test_a_cell_that_is_done_is_not_played_again(tmp_path):
    study = small(seeds=[1])
    cells = cells_of(study, tmp_path)
    first = ended(study, cells, tmp_path)
    told = []
    assert ended(study, cells, tmp_path, lambda cell, t: told.append(t)) == first
    assert told == []


@pytest.mark.parametrize("keep", ["all", "first", "none"])
def test_the_run_directories_that_are_kept_are_those_that_the_study_says(tmp_path, keep):
    study = small(keep=keep)
    for cell in ended(study, cells_of(study, tmp_path), tmp_path):
        is_whole = (cell.path / "rounds/001/lessons.jsonl").exists()
        assert is_whole == (keep == "all" or (keep == "first" and cell.seed == 1))
        assert (cell.path / "rounds/001/metrics.json").exists()


def test_tuning_cells_are_pruned_unless_all_are_kept(tmp_path):
    study = small(**TUNED)
    cells = tuning_cells(study, Site(tmp_path, tmp_path, {}))[:1]
    [cell] = ended(study, cells, tmp_path)
    assert not (cell.path / "rounds/001/lessons.jsonl").exists()


def test_a_kill_between_the_result_and_the_pruning_is_made_good(tmp_path):
    study = small(seeds=[1], keep="all")
    cells = cells_of(study, tmp_path)
    ended(study, cells, tmp_path)
    for file in tmp_path.rglob("result.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"is_whole": False}))
    ended(study, cells, tmp_path)
    assert not any(tmp_path.glob("cells/*/*/*/rounds/*/lessons.jsonl"))


@pytest.mark.parametrize("keys", [{"seeds": [2, 1, 3]}, {"keep": "none"}])
def test_what_was_kept_stays_whole_whatever_the_study_says_later(tmp_path, keys):
    study = small()
    ended(study, cells_of(study, tmp_path), tmp_path)
    before = sorted(tmp_path.rglob("lessons.jsonl"))
    assert before
    later = small(**keys)
    ended(later, cells_of(later, tmp_path), tmp_path)
    assert {*before} <= {*tmp_path.rglob("lessons.jsonl")}


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_probe_that_measures_no_number_fails_its_cell_alone(tmp_path, value):
    text = f"{{0: {{'x': float('{value}')}}}} if 'eva' in str(path) else {{}}"
    (tmp_path / "own.py").write_text(f"def probe(path):\n    return {text}\n")
    study = small(seeds=[1], probe={"kind": "python", "call": "own:probe"})
    cells = cells_of(study, tmp_path)
    static, eva = ended(study, cells, tmp_path)
    assert static.result
    assert f"the probe returned {{0: {{'x': {value}}}}}; expected finite numbers" in eva.failed
    (tmp_path / "own.py").write_text("def probe(path):\n    return {0: {'x': 1.0}}\n")
    assert ended(study, cells, tmp_path)[1].result.rounds[0]["x"] == 1.0


def test_the_traceback_of_a_plug_in_stands_in_the_log_of_its_cell(tmp_path):
    (tmp_path / "own.py").write_text("def reward(prompts, responses):\n    return 1 / 0\n")
    own = {"kind": "python", "call": "own:reward"}
    study = small(seeds=[1], arms={"eva": {"reward": own}, "static": {"creator": None}})
    [cell] = ended(study, cells_of(study, tmp_path)[:1], tmp_path)
    assert "ZeroDivisionError" in cell.failed
    log = (cell.path / "logs/study.log").read_text()
    assert 'own.py", line 2, in reward' in log


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    study = small(seeds=[1])
    cells = cells_of(study, tmp_path)
    (tmp_path / "cells").write_text("")
    assert all("cannot write" in cell.failed for cell in ended(study, cells, tmp_path))
    (tmp_path / "cells").unlink()
    (cells[0].path / "result.json").mkdir(parents=True)
    with pytest.raises(RunDirError, match=r"result\.json is damaged; delete the folder"):
        ended(study, cells, tmp_path)


def test_a_probe_is_called_before_the_run_is_pruned(tmp_path):
    study = small(keep="none", probe={"kind": "python", "call": "tests.study.plug_ins:lengths"})
    found = ended(study, cells_of(study, tmp_path)[:1], tmp_path)
    assert found[0].result.rounds[0]["pool"] == 8.0


def test_a_cell_is_played_in_this_process_too(tmp_path):
    study = small(probe=PROBE)
    cell, told = cells_of(study, tmp_path)[0], []
    play_cell(told.append, cell.recipe, cell.path, tmp_path, study.probe, False)
    [known] = ended(study, [cell], tmp_path)
    assert told == [0, 1, 2]
    assert known.result.rounds[1]["twice"] == 2 * known.result.rounds[1]["words"]


def test_a_run_directory_of_another_recipe_is_refused_by_name(tmp_path):
    study = small(seeds=[1])
    cells = cells_of(study, tmp_path)
    ended(study, cells, tmp_path)
    changed = cells_of(small(seeds=[1], change=small().change | {"n": 3}), tmp_path)
    with pytest.raises(RunDirError, match=r"cells/static/as-is/seed1: .*n is 4 there and 3 here"):
        ended(study, changed, tmp_path)
    longer = cells_of(small(seeds=[1], change=small().change | {"rounds": 3}), tmp_path)
    with pytest.raises(
        RunDirError, match="seed1 was done after 2 rounds, and the study asks for 3"
    ):
        ended(study, longer, tmp_path)
    for cell in cells:  # what only says how to compute may differ, and a moved folder too
        text = (cell.path / "recipe.yaml").read_text()
        (cell.path / "recipe.yaml").write_text(f"# by hand\n{text}")
    assert ended(study, cells, tmp_path)[0].result


def test_a_result_that_is_gone_is_made_again(tmp_path):
    study = small(seeds=[1], keep="none")
    cells = cells_of(study, tmp_path)
    first = ended(study, cells, tmp_path)
    (cells[0].path / "result.json").unlink()
    shutil.rmtree(cells[1].path)
    again = ended(study, cells, tmp_path)
    for was, now in zip(first, again, strict=True):
        timed = {"cpu_seconds": 0.0, "wall_seconds": 0.0}
        assert was.result.model_copy(update=timed) == now.result.model_copy(update=timed)


def test_a_run_that_somebody_else_plays_is_a_failure_of_its_cell(tmp_path):
    study = small(seeds=[1])
    cells = cells_of(study, tmp_path)
    game = run_recipe(cells[0].recipe, cells[0].path, here=tmp_path)
    next(game)
    [cell] = ended(study, cells[:1], tmp_path)
    assert "is being written by process" in cell.failed
    game.close()


def test_what_is_heavy_is_said_by_the_recipes():
    toy = recipe()
    assert heavy([toy]) == ["eva.study.play"]
    found = heavy([toy, load_recipe("playground-eva"), load_recipe("playground-rloo")])
    assert found == ["eva.backends.hf", "eva.learn.online", "eva.learn.trainer", "eva.study.play"]
