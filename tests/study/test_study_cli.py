"""`eva study` and `eva playground demo`, as a person calls them."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from eva.cli.main import app
from eva.cli.study import Bar, clock, cores, shown
from eva.errors import EvaError, RecipeError, RunDirError
from eva.findings import Measured
from eva.study import Far
from tests.study.small import FIELDS, TUNED, findings
from tests.world import said

CLAIM = {"better": "eva", "than": "static", "on": "hard/sampled/reward"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The file of a small study, in the working directory."""
    pytest.importorskip("altair")
    monkeypatch.chdir(tmp_path)
    return write(tmp_path)


def write(folder, **keys):
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(FIELDS | keys, sort_keys=False))
    return file


def failing(*words):
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])
    return done.exception, done.output


def test_a_study_is_played_to_its_table_and_its_page(study, tmp_path):
    write(tmp_path, claims=[CLAIM])
    out = said("study", "small.yaml", "--jobs", "2")
    lines = out.splitlines()
    assert lines[0] == "small: 2 arms: 4 runs, 12 rounds in all; in runs/small"
    assert "| arm | hard/sampled/reward |" in lines
    assert any(line.startswith("| eva - static | ") and " ± " in line for line in lines)
    assert any(line.startswith("- On hard/sampled/reward eva ends ") for line in lines)
    assert lines[-1] == "report: runs/small/report.html"
    assert (tmp_path / "runs/small/report.html").read_text().startswith("<!DOCTYPE html>")
    made = json.loads((tmp_path / "runs/small/made.json").read_text())
    assert made["command"] == "eva study small.yaml"


def test_machines_get_a_line_for_each_cell(study):
    lines = [
        json.loads(line) for line in said("study", "small.yaml", "home", "--json").splitlines()
    ]
    assert {(line["arm"], line["seed"]) for line in lines[:-1]} == {
        (arm, seed) for arm in ("static", "eva") for seed in (1, 2)
    }
    assert lines[0] == {
        "cell": f"cells/{lines[0]['arm']}/as-is/seed{lines[0]['seed']}",
        "use": "table",
        "arm": lines[0]["arm"],
        "place": {},
        "setting": {},
        "seed": lines[0]["seed"],
        "failed": None,
    }
    assert lines[-1] == {"report": "home/report.html"}


def test_a_dry_run_counts_and_makes_nothing(study, tmp_path):
    write(tmp_path, **TUNED)
    out = said("study", "small.yaml", "--dry-run")
    assert out == "small: 2 arms in 2 places with 2 settings each: 8 runs after 4 to tune, 36 " \
                  "rounds in all\n"  # fmt: skip
    assert json.loads(said("study", "small.yaml", "--dry-run", "--json")) == {
        "arms": 2,
        "places": 2,
        "settings": 2,
        "tuning_runs": 4,
        "table_runs": 8,
        "rounds": 36,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


def test_the_results_page_is_remade_without_playing(study, tmp_path):
    write(tmp_path, curves=["hard/sampled/reward"], seeds=[1, 2, 3])
    out = said("study", "small.yaml", "--results", "docs/results")
    assert out.splitlines()[-1] == "results: docs/results/small.md"
    pages = {path.name: path.read_bytes() for path in (tmp_path / "docs/results").iterdir()}
    assert {"small.md", "small-curves.svg", "small-differences.svg"} <= pages.keys()
    text = pages["small.md"].decode()
    assert "eva study small.yaml --results docs/results" in text
    assert all(f"({name})" in text for name in pages if name.endswith(".svg"))
    for path in (tmp_path / "docs/results").iterdir():
        path.unlink()
    said("study", "small.yaml", "--results", "docs/results")
    assert {path.name: path.read_bytes() for path in (tmp_path / "docs/results").iterdir()} == pages


def test_what_failed_is_said_at_once_and_at_the_end_and_the_rest_is_shown(study, tmp_path):
    own = {"kind": "python", "call": "own:reward"}
    write(tmp_path, arms={"static": {"creator": None}, "eva": {"reward": own}})
    error, out = failing("study", "small.yaml")
    assert isinstance(error, EvaError)
    assert "2 of 4 runs have no result and are left out of the tables, e.g. cells/eva" in str(error)
    assert "failed: cells/eva/as-is/seed1: own:reward: the module 'own' cannot be" in out
    assert "| static | 0." in out
    assert "| eva | -" in out
    assert "report: runs/small/report.html" in out


def test_what_is_wrong_is_one_sentence(study, tmp_path):
    assert isinstance(failing("study", "gone.yaml")[0], RecipeError)
    (tmp_path / "runs/small").mkdir(parents=True)
    (tmp_path / "runs/small/other").write_text("")
    assert isinstance(failing("study", "small.yaml")[0], RunDirError)


def test_the_file_of_a_study_is_not_written_over(study, tmp_path):
    (tmp_path / "own").mkdir()
    text = study.read_text()
    study.rename(tmp_path / "own/study.yaml")
    error, _ = failing("study", "own/study.yaml", "own")
    assert isinstance(error, RunDirError)
    assert "own/study.yaml lies where the study would write its own" in str(error)
    assert (tmp_path / "own/study.yaml").read_text() == text


def test_a_missing_extra_is_said_before_anything_is_played(study, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("eva.report.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    error, _ = failing("study", "small.yaml")
    assert "the report needs altair, which is not installed: pip install" in str(error)
    assert not (tmp_path / "runs").exists()


def test_a_file_where_the_study_folder_should_be_is_one_sentence(study, tmp_path):
    for home in ("small.yaml", "small.yaml/home", "small.yaml/deep/home"):
        error, _ = failing("study", "small.yaml", home)
        assert isinstance(error, RunDirError)
        assert "cannot write" in str(error)


def test_runs_that_failed_are_told_even_if_the_pages_cannot_be_written(study, tmp_path):
    own = {"kind": "python", "call": "own:reward"}
    (tmp_path / "docs").write_text("")
    write(tmp_path, arms={"static": {"creator": None}, "eva": {"reward": own}})
    error, _ = failing("study", "small.yaml", "--results", "docs/results")
    assert "2 of 4 runs have no result" in str(error)
    assert ". Besides, cannot write docs/results/" in str(error)
    (tmp_path / "own.py").write_text("from eva.toy import reward\n")
    error, _ = failing("study", "small.yaml", "--results", "docs/results")
    assert str(error).startswith("cannot write docs/results/")


def test_what_no_run_measured_is_said(study, tmp_path):
    own = {"kind": "python", "call": "own:reward"}
    arms = {"static": {"creator": None}, "eva": {"reward": own}}
    write(tmp_path, arms=arms, metrics=["hard/sampled/reward", "round/parents"])
    _, out = failing("study", "small.yaml")
    assert "measured by no run: round/parents\n" in out


# ---------------------------------------------------------------- killed


def started(file, home):
    """`eva study` in a process of its own."""
    words = [sys.executable, "-m", "eva", "study", str(file), str(home), "--jobs", "2"]
    return subprocess.Popen(
        words, cwd=file.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for(is_so, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_let_go(log):
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.slow
def test_a_study_that_is_killed_anywhere_finds_the_same(study, tmp_path):
    file = write(tmp_path, **TUNED, prepare={"b": "eva new {out}"}, claims=[CLAIM],
                 curves=["round/words"])  # fmt: skip
    with started(file, tmp_path / "whole") as process:
        assert process.wait() == 0, process.stderr.read()
    home = tmp_path / "home"

    def done():
        return len(list(home.glob("cells/*/*/*/result.json")))

    moments = [
        lambda: (home / "study.yaml").exists(),
        lambda: any(home.glob("prepared/*.log")),
        lambda: any(home.glob("cells/*/*/*/rounds/000/lessons.jsonl")),
        lambda: done() >= 2,
        lambda: done() >= 5,
        lambda: done() >= 11,
    ]
    for moment in moments:
        with started(file, home) as process:
            wait_for(lambda moment=moment, p=process: moment() or p.poll() is not None)
            process.kill()
    with started(file, home) as process:
        assert process.wait() == 0, process.stderr.read()
    assert findings(home) == findings(tmp_path / "whole")
    assert not list(home.rglob("*.part"))


SLOW = """
import time
from pathlib import Path

def reward(prompts, responses):
    if not Path("{mark}").exists():
        time.sleep(600)
    from eva.toy import reward
    return reward(prompts, responses)
"""


@pytest.fixture
def slow(study, tmp_path):
    """A study whose cells wait for ever, until there is a file `fast`."""
    (tmp_path / "own.py").write_text(SLOW.replace("{mark}", str(tmp_path / "fast")))
    own = {"kind": "python", "call": "own:reward"}
    return write(tmp_path, change=FIELDS["change"] | {"reward": own})


def playing(home):
    """The logs of two cells that are being played."""
    logs = list(home.glob("cells/*/*/seed1/logs/study.log"))
    return logs if len(list(home.glob("cells/*/*/seed1/run.json"))) == 2 else []


def test_the_cells_of_a_killed_study_end_with_it(slow, tmp_path):
    home = tmp_path / "home"
    with started(slow, home) as process:
        wait_for(lambda: playing(home))
        assert not any(map(is_let_go, playing(home)))
        process.kill()
    wait_for(lambda: all(map(is_let_go, playing(home))), seconds=2.0)


def test_ctrl_c_ends_the_cells_and_says_how_to_go_on(slow, tmp_path):
    home = tmp_path / "home"
    with started(slow, home) as process:
        wait_for(lambda: playing(home))
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        assert "the same command goes on from the last finished stage" in process.stderr.read()
    assert all(map(is_let_go, playing(home)))
    (tmp_path / "fast").touch()
    with started(slow, home) as process:
        assert process.wait() == 0
    assert json.loads(findings(home))["cells"][0]["failed"] is None


# ---------------------------------------------------------------- the bar, the demo


def test_the_bar_shows_rounds_and_the_time_left():
    out = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Bar(out) as bar:
        bar.tell(Far("prepare", 1, 2))
        bar.tell(Far("play", 3, 12, 75.0))
    text = out.file.getvalue()
    assert "folders" in text
    assert "3/12" in text
    assert "1:15 left" in text


def test_numbers_are_said_as_a_person_reads_them():
    assert clock(59.6) == "1:00"
    assert clock(3723) == "1:02:03"
    assert shown(None) == "-"
    assert shown(Measured(mean=0.5, error=None, low=None, high=None, runs=1)) == "0.500"
    assert cores() >= 1


def test_the_demo_plays_recipes_side_by_side_and_compares_the_last_one(study, tmp_path):
    short = "base: toy\nrounds: 2\nprompts: {n: 8}\nevaluate: {reward: {kind: toy}}\n"
    (tmp_path / "alone.yaml").write_text(f"{short}name: x\ncreator: null\n")
    (tmp_path / "own.py").write_text("from eva.toy import reward\n")
    (tmp_path / "game.yaml").write_text(f"{short}reward: {{kind: python, call: 'own:reward'}}\n")
    arms = ["--arm", "alone.yaml", "--arm", "game.yaml"]
    out = said("playground", "demo", "home", *arms)
    lines = out.splitlines()
    assert lines[0] == "alone.yaml, game.yaml: 2 runs of 2 rounds in home"
    assert lines[1].startswith("| arm | easy/sampled/reward | easy/sampled/win_rate |")
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[3:8]]
    assert names == ["theta_0", "theta_1", "alone", "game", "game - alone"]
    assert "±" not in out
    assert lines[-2].startswith("one seed, not evidence")
    assert lines[-1] == f"report: {tmp_path}/home/report.html"
    out = said("playground", "demo", "home", *arms, "--seed", "1", "--seed", "2")
    assert "| game | 0." in out
    assert " ± " in out
    assert "2 seeds, mean ± s.e." in out


def test_the_demo_says_what_it_cannot_compare(study, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.yaml", "b/a.yaml"):
        (tmp_path / name).write_text("base: toy\n")
    error, _ = failing("playground", "demo", "home", "--arm", "a.yaml", "--arm", "b/a.yaml")
    assert "two of the arms a.yaml, b/a.yaml have one name" in str(error)
    (tmp_path / "a.yaml").write_text("base: toy\nevaluate: null\n")
    error, _ = failing("playground", "demo", "home", "--arm", "a.yaml")
    assert "a.yaml measures nothing" in str(error)
