"""Arms side by side."""

import json

import numpy as np
import pytest

from eva import study
from eva.errors import EvaError, RecipeError
from tests.world import contents, played

SHORT = ["base: toy", "rounds: 2", "prompts: {n: 8}"]


@pytest.fixture
def arms(tmp_path):
    for name, line in {"alone": "creator: null", "game": "n: 4"}.items():
        (tmp_path / f"{name}.yaml").write_text("\n".join([*SHORT, f"name: {name}", line]))
    return [str(tmp_path / "alone.yaml"), str(tmp_path / "game.yaml")]


def test_arms_are_played_on_the_same_seeds_in_processes_and_compared(arms, tmp_path):
    cells = study.cells(arms, [1, 2], tmp_path / "runs")
    told = []
    study.play(cells, 2, lambda cell, t: told.append((cell.name, t)))
    assert sorted(told) == sorted((c.name, t) for c in cells for t in (0, 1, 2))

    key = "hard/sampled/reward"
    assert key in study.common_metrics(cells)
    rows = {row.name: row.values[key] for row in study.rows(cells, [key], arms[1])}
    ends = {c.name: json.loads((c.path / "evals/002.json").read_text())[key] for c in cells}
    gains = [ends[f"{arms[1]} seed {s}"] - ends[f"{arms[0]} seed {s}"] for s in (1, 2)]
    found = rows["game - alone"]
    assert found.mean == pytest.approx(np.mean(gains))
    assert found.error == pytest.approx(abs(gains[0] - gains[1]) / 2)  # s.e. of two numbers
    assert list(rows) == ["theta_0", "theta_1", "alone", "game", "game - alone"]

    lines = list(study.markdown(study.rows(cells, [key], arms[1]), [key]))
    assert lines[0] == f"| arm | {key} |"
    assert all(" ± " in line for line in lines[2:])


def test_arms_of_a_seed_share_their_first_round(arms, tmp_path):
    cells = study.cells(arms, [1], tmp_path / "runs")
    study.play(cells, 2, lambda cell, t: None)
    a, b = (contents(cell.path) for cell in cells)
    for name in ("rounds/000/lessons.jsonl", "rounds/000/checkpoint.jsonl", "evals/000.json"):
        assert a[name] == b[name]


def test_a_cell_that_fails_is_named_and_the_others_are_played(arms, tmp_path):
    cells = study.cells([arms[0], str(tmp_path / "gone.yaml")], [1], tmp_path / "runs")
    with pytest.raises(EvaError, match=r"gone\.yaml seed 1: eva: there is no recipe"):
        study.play(cells, 1, lambda cell, t: None)
    assert 2 in study.measured(cells[0])


def test_one_seed_has_no_error_and_the_table_says_so(arms, tmp_path):
    cells = study.cells(arms, [1], tmp_path / "runs")
    study.play(cells, 2, lambda cell, t: None)
    rows = study.rows(cells, ["hard/sampled/reward"], arms[1])
    assert all("±" not in line for line in study.markdown(rows, ["hard/sampled/reward"]))


def test_the_pair_of_a_study_is_what_a_single_run_would_be(tmp_path, arms):
    cells = study.cells([arms[1]], [3], tmp_path / "runs")
    study.play(cells, 1, lambda cell, t: None)
    played(tmp_path / "alone", "seed=3", "rounds=2", "chunk=16", "evaluate.sets.easy.n=32",
           "evaluate.sets.hard.n=32", "name=game")  # fmt: skip
    assert contents(cells[0].path) == contents(tmp_path / "alone")


def test_arms_that_would_share_a_folder_are_refused(tmp_path):
    for arms, seeds in ((["toy", "toy"], [1]), (["toy"], [1, 1]), (["a/x.yaml", "b/x.yaml"], [1])):
        with pytest.raises(RecipeError, match="share a run directory"):
            study.cells(arms, seeds, tmp_path)
    assert len(study.cells(["x-0.1.yaml", "x-0.2.yaml"], [1, 2], tmp_path)) == 4


def test_a_plug_in_may_print_and_evaluation_may_be_rare(tmp_path):
    (tmp_path / "loud.py").write_text(
        "def score(prompt, response):\n    print('{\"round\": nonsense')\n    return 1.0\n"
    )
    text = "base: toy\nname: loud\nrounds: 3\nprompts: {n: 4}\nevaluate: {every: 2}\n"
    text += "reward: {kind: rules, call: 'loud:score'}\n"
    (tmp_path / "loud.yaml").write_text(text)
    cells = study.cells([str(tmp_path / "loud.yaml")], [1], tmp_path / "runs")
    told = []
    study.play(cells, 1, lambda cell, t: told.append(t))
    assert told == [0, 1, 2, 3]
    rows = study.rows(cells, ["hard/sampled/reward"], cells[0].arm)
    assert [row.name for row in rows] == ["theta_0", "loud"]
