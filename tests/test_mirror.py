"""A copy of the run directory from which a run goes on elsewhere."""

import errno
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from eva.cli.main import app
from eva.errors import RecipeError, RunDirError, StopRule
from eva.mirror import INDEX, Mirror, mirrored, standing
from eva.start import run_recipe
from tests.world import contents, killed_at, played, recipe


def mirror_at(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'copy'}"


def copy_of(tmp_path: Path) -> dict[str, bytes]:
    found = contents(tmp_path / "copy")
    del found[INDEX]
    return found


def test_the_copy_of_a_finished_run_is_the_run(tmp_path):
    list(run_recipe(recipe(), tmp_path / "run", here=tmp_path, mirror=mirror_at(tmp_path)))
    list(run_recipe(recipe(), tmp_path / "run", here=tmp_path, mirror=mirror_at(tmp_path)))
    assert copy_of(tmp_path) == contents(tmp_path / "run")
    assert not (tmp_path / "copy/logs/lock").exists()
    assert (tmp_path / "copy/logs/attempt_1.log").exists()


def test_a_run_goes_on_from_its_copy_on_another_machine(tmp_path):
    with mirrored(tmp_path / "here", mirror_at(tmp_path), every=0.001):
        killed_at(lambda: played(tmp_path / "here"), 60)
    shutil.rmtree(tmp_path / "here")
    again = run_recipe(recipe(), tmp_path / "there", here=tmp_path, mirror=mirror_at(tmp_path))
    list(again)
    played(tmp_path / "whole")
    assert contents(tmp_path / "there") == contents(tmp_path / "whole")
    assert copy_of(tmp_path) == contents(tmp_path / "whole")
    assert (tmp_path / "there/logs/attempt_2.log").exists()


@pytest.mark.parametrize("event", range(1, 60, 7))
def test_a_copy_that_was_cut_off_is_a_state_that_a_kill_could_have_left(tmp_path, event):
    """The copying itself is killed at its n-th write; the run goes on from what is there."""
    played(tmp_path / "run")

    def push():
        Mirror(tmp_path / "run", mirror_at(tmp_path)).push()

    assert killed_at(push, event) or event > 50
    list(run_recipe(recipe(), tmp_path / "there", here=tmp_path, mirror=mirror_at(tmp_path)))
    assert contents(tmp_path / "there") == contents(tmp_path / "run")


def test_only_what_is_new_is_copied_and_what_is_gone_is_removed(tmp_path):
    run = tmp_path / "run"
    (run / "a").mkdir(parents=True)
    (run / "a/one").write_text("1")
    (run / "two").write_text("2")
    (run / "three.part").write_text("half")
    Mirror(run, mirror_at(tmp_path)).push()
    assert copy_of(tmp_path) == {"a/one": b"1", "two": b"2"}
    (tmp_path / "copy/two").write_text("not touched")
    (run / "a/one").write_text("1 more")
    mirror = Mirror(run, mirror_at(tmp_path))
    mirror.push()
    assert copy_of(tmp_path) == {"a/one": b"1 more", "two": b"not touched"}
    (run / "two").unlink()
    mirror.push()
    assert copy_of(tmp_path) == {"a/one": b"1 more"}


def test_what_was_fetched_and_is_gone_is_removed(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/snapshot").write_text("")
    mirror = Mirror(tmp_path / "run", mirror_at(tmp_path))
    mirror.fetch()
    (tmp_path / "run/snapshot").unlink()
    mirror.push()
    assert copy_of(tmp_path) == {}


def test_what_is_gone_in_the_copy_too_is_no_failure(tmp_path):
    """As after an attempt that was cut off between the removal and the index."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/snapshot").write_text("")
    mirror = Mirror(tmp_path / "run", mirror_at(tmp_path))
    mirror.push()
    (tmp_path / "run/snapshot").unlink()
    (tmp_path / "copy/snapshot").unlink()
    mirror.push()
    assert (tmp_path / f"copy/{INDEX}").read_text() == "{}"


def test_an_older_run_does_not_write_over_a_copy_that_is_rounds_ahead(tmp_path):
    url = mirror_at(tmp_path)
    killed_at(lambda: played(tmp_path / "one"), 40)
    Mirror(tmp_path / "one", url).push()
    list(run_recipe(recipe(), tmp_path / "two", here=tmp_path, mirror=url))
    with pytest.raises(RunDirError, match=r"rounds ahead .* remove that folder"):
        list(run_recipe(recipe(), tmp_path / "one", here=tmp_path, mirror=url))
    assert copy_of(tmp_path) == contents(tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    list(run_recipe(recipe(), tmp_path / "one", here=tmp_path, mirror=url))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_another_machine_made_in_the_same_round_stays_in_the_copy(tmp_path):
    one, two, url = tmp_path / "one", tmp_path / "two", mirror_at(tmp_path)
    one.mkdir()
    (one / "run.json").write_text("{}")
    (one / "state.json").write_text('{"round": 1}')
    Mirror(one, url).push()
    mirror = Mirror(two, url)
    mirror.fetch()
    (two / "chunk").write_text("paid for")
    mirror.push()
    (one / "log").write_text("")
    Mirror(one, url).push()
    assert {"chunk", "log"} < set(copy_of(tmp_path))


def test_the_copy_of_another_run_is_refused(tmp_path):
    for run, facts in (("one", "{}"), ("two", '{"host": "b"}')):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(facts)
    Mirror(tmp_path / "one", mirror_at(tmp_path)).push()
    with pytest.raises(RunDirError, match=r"another run .* give this run another mirror"):
        Mirror(tmp_path / "two", mirror_at(tmp_path))
    assert copy_of(tmp_path) == {"run.json": b"{}"}


def test_of_a_data_base_in_use_a_snapshot_is_copied(tmp_path):
    (tmp_path / "run").mkdir()
    with closing(sqlite3.connect(tmp_path / "run/cache.sqlite", isolation_level=None)) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table t(x)")
        base.execute("insert into t values (7)")
        Mirror(tmp_path / "run", mirror_at(tmp_path)).push()
    with closing(sqlite3.connect(tmp_path / "copy/cache.sqlite")) as copy:
        assert copy.execute("select x from t").fetchall() == [(7,)]
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"cache.sqlite", INDEX}


def test_what_waits_beside_a_data_base_is_seen(tmp_path):
    (tmp_path / "run").mkdir()
    mirror = Mirror(tmp_path / "run", mirror_at(tmp_path))
    with closing(sqlite3.connect(tmp_path / "run/cache.sqlite", isolation_level=None)) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table t(x)")
        mirror.push()
        main = (tmp_path / "run/cache.sqlite").stat()
        base.execute("insert into t values (7)")
        assert (tmp_path / "run/cache.sqlite").stat().st_mtime_ns == main.st_mtime_ns
        mirror.push()
        with closing(sqlite3.connect(tmp_path / "copy/cache.sqlite")) as copy:
            assert copy.execute("select x from t").fetchall() == [(7,)]
        before = (tmp_path / "copy/cache.sqlite").stat().st_ino
        mirror.push()
        assert (tmp_path / "copy/cache.sqlite").stat().st_ino == before  # not copied again


def test_a_bucket_serves_as_well(tmp_path):
    url = "memory://bucket/run"
    list(run_recipe(recipe(), tmp_path / "run", here=tmp_path, mirror=url))
    files = fsspec.filesystem("memory")
    state = (tmp_path / "run/state.json").read_bytes()
    assert files.cat_file("/bucket/run/state.json") == state
    with mirrored(tmp_path / "there", url):
        assert contents(tmp_path / "there") == contents(tmp_path / "run")
    files.rm("/bucket", recursive=True)


def test_a_mirror_that_cannot_be_written_is_tried_again_and_told_at_the_end(tmp_path, caplog):
    (tmp_path / "copy/state.json").mkdir(parents=True)  # where a file should be
    with (
        pytest.raises(RunDirError, match=r"cannot be written .* run the same command again"),
        mirrored(tmp_path / "run", mirror_at(tmp_path), every=0.01),
    ):
        played(tmp_path / "run")
        while "it is tried again" not in caplog.text:
            pass
    assert (tmp_path / "run/state.json").exists()


def test_the_thread_goes_on_after_any_failure(tmp_path, monkeypatch, caplog):
    push, failures = Mirror.push, iter([ValueError("first"), OSError("second")])

    def failing(mirror):
        for error in failures:
            raise error
        push(mirror)

    monkeypatch.setattr(Mirror, "push", failing)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/state.json").write_text("{}")
    with mirrored(tmp_path / "run", mirror_at(tmp_path), every=0.01):
        ends = time.monotonic() + 60
        while not (tmp_path / "copy/state.json").exists():
            assert time.monotonic() < ends
    assert "ValueError: first; it is tried again" in caplog.text
    assert "OSError: second; it is tried again" in caplog.text


def test_the_error_of_the_run_is_told_rather_than_that_of_its_mirror(tmp_path, caplog):
    (tmp_path / "copy/state.json").mkdir(parents=True)  # where a file should be
    (tmp_path / "run").mkdir()
    (tmp_path / "run/state.json").write_text("{}")
    with (
        pytest.raises(StopRule, match="the budget is spent"),
        mirrored(tmp_path / "run", mirror_at(tmp_path)),
    ):
        raise StopRule("the budget is spent")
    assert "cannot be written" in caplog.text


def test_what_a_run_made_before_its_error_is_copied(tmp_path):
    with pytest.raises(StopRule), mirrored(tmp_path / "run", mirror_at(tmp_path)):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/state.json").write_text("{}")
        raise StopRule("the budget is spent")
    assert copy_of(tmp_path) == {"state.json": b"{}"}


def test_a_mirror_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / f"copy/{INDEX}").write_text("{")
    with pytest.raises(RunDirError, match=r"cannot be read .*check the address"):
        Mirror(tmp_path / "run", mirror_at(tmp_path))
    (tmp_path / f"copy/{INDEX}").unlink()
    (tmp_path / "copy/run.json").mkdir()
    (tmp_path / "copy/run.json/x").write_text("")
    mirror = Mirror(tmp_path / "run", mirror_at(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("a file where the copy has a folder")
    with pytest.raises(RunDirError, match="restore it, or give the run another mirror"):
        mirror.fetch()
    with pytest.raises(RunDirError, match=r"cannot be compared .*restore what is damaged"):
        Mirror(tmp_path / "run", mirror_at(tmp_path))


def test_an_unknown_kind_of_url_is_one_sentence(tmp_path):
    with pytest.raises(RunDirError, match=r"cannot be opened .*install what this kind of URL"):
        Mirror(tmp_path, "nowhere://x/y")


def test_without_fsspec_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(RecipeError, match=r"pip install 'eva-rlhf\[mirror\]'"):
        Mirror(tmp_path, "file:///x")


def test_what_vanishes_while_one_looks_is_none(tmp_path, monkeypatch):
    scandir = os.scandir

    def vanishing(path):
        if Path(path).name == "gone":
            Path(path).rmdir()
        return scandir(path)

    (tmp_path / "gone").mkdir()
    (tmp_path / "here").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")  # listed, but without a status
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "scandir", vanishing)
    assert set(standing(tmp_path)) == {"here"}
    assert not (tmp_path / "gone").exists()


def test_a_folder_that_cannot_be_read_does_not_pass_for_empty(tmp_path, monkeypatch):
    scandir = os.scandir

    def stale(path):
        if Path(path).name == "rounds":
            raise OSError(errno.ESTALE, "stale file handle", path)
        return scandir(path)

    (tmp_path / "run/rounds").mkdir(parents=True)
    (tmp_path / "run/rounds/paid").write_text("")
    mirror = Mirror(tmp_path / "run", mirror_at(tmp_path))
    mirror.push()
    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(RunDirError, match="stale file handle"):
        mirror.push()
    assert (tmp_path / "copy/rounds/paid").exists()


def test_the_command_line_keeps_a_mirror(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "toy", "run", "--set", "rounds=1", "--mirror", mirror_at(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert copy_of(tmp_path) == contents(tmp_path / "run")


def test_a_mirror_that_cannot_be_written_is_known_before_the_run(tmp_path):
    (tmp_path / "file").write_text("a file stands where a folder should be")
    with (
        pytest.raises(RunDirError, match=r"cannot be written .*nothing was played"),
        mirrored(tmp_path / "run", f"file://{tmp_path / 'file/copy'}"),
    ):
        raise AssertionError("it was played")


def test_a_mirror_in_the_run_directory_is_refused(tmp_path):
    with (
        pytest.raises(RunDirError, match="lies in the run directory"),
        mirrored(tmp_path / "run", f"file://{tmp_path / 'run/inner'}"),
    ):
        raise AssertionError("it was played")
