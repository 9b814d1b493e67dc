"""`eva report` at the command line: runs, a study, a mixture of them, and watching."""

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.fake_runs import write_run
from tests.report.fake_study import findings as found
from tests.report.fake_study import write_findings, write_study


def eva(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "eva", "report", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_study_has_its_page_in_its_folder_and_runs_have_theirs(tmp_path):
    study = write_study(tmp_path / "study")
    done = eva(study)
    assert done.returncode == 0 and done.stdout == f"report: {study / 'report.html'}\n"
    assert "eva · study" in (study / "report.html").read_text("utf-8")
    assert len(list(study.glob("cells/*/*/seed4/report.html"))) == 3
    run = next(study.glob("cells/eva*/*/seed4"))
    assert eva(run, "--out", tmp_path / "run.html").returncode == 0
    assert "One run, round by round." in (tmp_path / "run.html").read_text("utf-8")


@pytest.mark.parametrize("options", [[], ["--watch"]])
def test_studies_and_runs_are_not_mixed(tmp_path, options):
    study = write_findings(tmp_path / "study", found())
    run = write_run(tmp_path / "run", "static", rounds=1, prompts=3)
    for paths in ([run, study], [study, run], [study, study]):
        done = eva(*paths, *options)
        assert done.returncode == 1
        assert done.stderr == (
            f"eva: {study} is a study, and a page shows runs or one study; name it alone\n"
        )
    assert not (run / "report.html").exists()


def test_a_study_has_no_single_picture(tmp_path):
    study = write_findings(tmp_path / "study", found())
    done = eva(study, "--picture", tmp_path / "p.svg")
    assert done.returncode == 1 and "a study has several pictures" in done.stderr
    assert not (tmp_path / "p.svg").exists()


@pytest.mark.parametrize("option", ["--out", "--picture"])
def test_watching_writes_nothing(tmp_path, option):
    done = eva(tmp_path, "--watch", option, tmp_path / "p")
    assert done.returncode == 2 and "--watch writes nothing" in done.stderr


def test_watching_what_is_not_there_is_one_sentence(tmp_path):
    done = eva(tmp_path / "missing", "--watch")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "there is no folder" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_watching_prints_its_address_and_ends_with_the_signal(tmp_path, stop):
    run = write_run(tmp_path / "run", "static", rounds=1, prompts=3)
    before = sorted(run.rglob("*"))
    command = [sys.executable, "-m", "eva", "report", "--watch", str(run), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        address = re.fullmatch(r"watching at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
        assert address, line
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"<!DOCTYPE html>")
        process.send_signal(stop)
        code = process.wait(timeout=30)
        if stop == signal.SIGINT:
            assert (code, process.stdout.read(), process.stderr.read()) == (
                0, "stopped watching\n", ""
            )  # fmt: skip
    assert sorted(run.rglob("*")) == before
