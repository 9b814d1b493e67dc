from pathlib import Path

import pytest

from eva.errors import RunDirError
from eva.reading import read_run, read_runs, replies
from tests.report.fake_runs import write_run


def test_a_run_is_read_with_its_rounds_evaluations_and_recipe(three_runs: list[Path]) -> None:
    run = read_run(three_runs[2])
    assert run.label == "eva"
    assert (run.played, run.planned) == (4, 4)
    assert sorted(run.evals) == [0, 1, 2, 3, 4]
    assert [len(played.steps) for played in run.rounds] == [24] * 4
    assert run.rounds[0].children == () and run.rounds[1].children != ()
    assert run.recipe["n"] == 8


def test_the_folder_that_only_holds_the_final_pool_is_no_round(three_runs: list[Path]) -> None:
    assert (three_runs[0] / "rounds/004/pool.jsonl").exists()
    assert [played.number for played in read_run(three_runs[0]).rounds] == [0, 1, 2, 3]


def test_responses_are_fetched_from_the_line_of_their_prompt(three_runs: list[Path]) -> None:
    run = read_run(three_runs[0])
    for answered in run.rounds[1].solved[::5]:
        with answered.file.open("rb") as file:
            file.seek(answered.offset)
            assert answered.prompt.id.encode() in file.readline()
        assert len(replies(answered)) == len(answered.rewards)


def test_a_folder_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="no run directory"):
        read_run(tmp_path)


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(RunDirError, match="no run directory was given"):
        read_runs([])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recipe.yaml", "{"),
        ("recipe.yaml", "- a list"),
        ("run.json", "{"),
        ("run.json", "[]"),
        ("rounds/000/pool.jsonl", "{}\n"),
        ("rounds/000/solved/000000.jsonl", '{"prompt": 3}\n'),
        ("rounds/000/metrics.json", "no"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    run = write_run(tmp_path / "run", "static", rounds=1, prompts=3)
    (run / name).write_text(text)
    with pytest.raises(RunDirError, match=name.replace("/", r"\/")):
        read_run(run)


def test_a_learner_line_that_a_kill_cut_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "static", rounds=1, prompts=3)
    log = run / "rounds/000/learn/log.jsonl"
    log.write_text(log.read_text()[:-9])
    assert len(read_run(run).rounds[0].steps) == 23


def test_a_missing_number_is_absent_and_not_zero(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "static", rounds=1, prompts=3)
    (run / "evals/001.json").write_text('{"hard/greedy/reward": null, "hard/sampled/reward": NaN}')
    assert read_run(run).evals[1] == {}


def test_runs_of_one_name_are_told_apart_by_seed_else_by_folder(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", "new", rounds=1, prompts=2, seed=1)
    two = write_run(tmp_path / "b", "new", rounds=1, prompts=2, seed=2)
    other = write_run(tmp_path / "c", "new", rounds=1, prompts=2, seed=1)
    assert [run.label for run in read_runs([one, two])] == ["new · seed 1", "new · seed 2"]
    assert [run.label for run in read_runs([one, other])] == ["new · a", "new · c"]
    assert [run.label for run in read_runs([one, one])] == ["1 · new", "2 · new"]


def test_a_recipe_that_does_not_say_how_many_rounds_plans_those_that_are_there(tmp_path):
    (tmp_path / "rounds/000").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    assert read_run(tmp_path).planned == 1
