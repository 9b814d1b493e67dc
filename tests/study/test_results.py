"""What a finished run leaves behind."""

import json

import pytest

from eva.errors import PlugInError, RunDirError
from eva.study.results import keep_result, known_result, prune, read_result
from tests.world import contents, played, played_online


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "toy"
    played(path, "rounds=2")
    return path


def test_a_result_has_the_metrics_of_rounds_and_checkpoints_and_what_was_spent(run):
    found = read_result(run, 1.5, 2.5, None)
    assert sorted(found.evals) == [0, 1, 2]
    assert sorted(found.rounds) == [0, 1]
    rounds = [json.loads((run / f"rounds/00{t}/metrics.json").read_text()) for t in (0, 1)]
    assert found.rounds[1] == rounds[1]
    assert found.spent == {
        "prompts": rounds[0]["prompts"] + rounds[1]["prompts"],
        "samples": rounds[0]["samples"] + rounds[1]["samples"],
        "tokens": rounds[0]["tokens"] + rounds[1]["tokens"],
        "evolver_calls": rounds[0]["written"] + rounds[1]["written"],
    }
    assert found.spent["evolver_calls"] > 0
    assert (found.cpu_seconds, found.wall_seconds) == (1.5, 2.5)


def test_steps_are_the_lines_of_the_learners_logs(tmp_path):
    played_online(tmp_path / "run")
    for t, lines in ((0, 3), (1, 4)):
        (tmp_path / f"run/rounds/00{t}/learn/log.jsonl").write_text("{}\n" * lines)
    assert read_result(tmp_path / "run", 0, 0, None).spent["steps"] == 7


def test_a_result_is_written_whole_and_read_again(run, tmp_path):
    result = read_result(run, 1.5, 2.5, None)
    assert known_result(tmp_path) is None
    keep_result(tmp_path, result)
    assert known_result(tmp_path) == result
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(RunDirError, match=r"result\.json is damaged; delete the folder"):
        known_result(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "result.json").mkdir()
    with pytest.raises(RunDirError, match=r"result\.json is damaged; delete the folder"):
        known_result(tmp_path)


def test_a_result_tells_the_commit_and_what_was_read(run, tmp_path):
    found, facts = read_result(run, 0, 0, None), json.loads((run / "run.json").read_text())
    assert found.inputs == facts["inputs"]
    assert "evaluate.sets.hard" in found.inputs
    assert found.commit == facts["commit"]
    bare = found.model_dump(mode="json", exclude={"commit", "inputs", "is_whole"})
    (tmp_path / "result.json").write_text(json.dumps(bare))
    assert known_result(tmp_path).inputs is None
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    assert known_result(tmp_path) == found


def test_what_a_probe_measures_joins_the_metrics_of_the_rounds(run):
    found = read_result(run, 0, 0, lambda path: {0: {"runs": 2.0}, 2: {"runs": 4}})
    assert found.rounds[0]["runs"] == 2.0
    assert found.rounds[0]["usable"] <= 1
    assert "runs" not in found.rounds[1]
    assert found.rounds[2] == {"runs": 4.0}


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (lambda path: {0: {"usable": 1.0}}, "the probe measures 'usable', which a round has"),
        (lambda path: [1, 2], r"the probe returned \[1, 2\]; expected finite numbers by name by"),
        (lambda path: {0: {"x": float("nan")}}, r"'x': nan.*; what cannot be measured is left out"),
        (lambda path: 1 / 0, "the probe raised ZeroDivisionError"),
    ],
)
def test_a_probe_that_breaks_its_contract_is_named(run, probe, said):
    with pytest.raises(PlugInError, match=said):
        read_result(run, 0, 0, probe)


def test_pruning_leaves_recipe_metrics_and_logs_and_can_be_repeated(tmp_path):
    path = tmp_path / "run"
    played(path, "rounds=2")
    result = read_result(path, 0, 0, None)
    keep_result(path, result)
    (path / "rounds/000/odd").symlink_to(tmp_path)
    (path / "cache").mkdir()
    (path / "cache/x").write_text("paid")
    before = contents(path)

    prune(path)
    prune(path)

    assert tmp_path.is_dir()
    after = contents(path)
    assert sorted(after) == [
        "evals/000.json",
        "evals/001.json",
        "evals/002.json",
        "recipe.yaml",
        "result.json",
        "rounds/000/metrics.json",
        "rounds/001/metrics.json",
        "run.json",
    ]
    assert all(before[name] == text for name, text in after.items())
    assert (path / "logs/attempt_1.log").exists()
    assert read_result(path, 0, 0, None) == result
    assert not (path / "cache").exists()
