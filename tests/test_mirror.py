"""A copy of the run directory from which a run goes on elsewhere."""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from eva.cli.main import app
from eva.errors import RecipeError, RunDirError
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
    Mirror(run, mirror_at(tmp_path)).push()
    assert copy_of(tmp_path) == {"a/one": b"1 more", "two": b"not touched"}
    (run / "two").unlink()
    Mirror(run, mirror_at(tmp_path)).push()
    assert copy_of(tmp_path) == {"a/one": b"1 more"}


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


def test_a_mirror_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / f"copy/{INDEX}").write_text("{")
    with pytest.raises(RunDirError, match=r"cannot be read .*check the address"):
        Mirror(tmp_path / "run", mirror_at(tmp_path))
    (tmp_path / f"copy/{INDEX}").unlink()
    (tmp_path / "copy/run.json").mkdir()
    (tmp_path / "copy/run.json/x").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("a file where the copy has a folder")
    with pytest.raises(RunDirError, match="restore it, or give the run another mirror"):
        Mirror(tmp_path / "run", mirror_at(tmp_path)).fetch()


def test_an_unknown_kind_of_url_is_one_sentence(tmp_path):
    with pytest.raises(RunDirError, match=r"cannot be opened .*install what this kind of URL"):
        Mirror(tmp_path, "nowhere://x/y")


def test_without_fsspec_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(RecipeError, match=r"pip install 'eva-rlhf\[mirror\]'"):
        Mirror(tmp_path, "file:///x")


def test_a_file_that_vanishes_while_one_looks_is_none(tmp_path, monkeypatch):
    (tmp_path / "here").write_text("")
    (tmp_path / "gone").write_text("")
    stat = Path.stat

    def vanishing(path, **how):
        if path.name == "gone":
            raise FileNotFoundError
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", vanishing)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert set(standing(tmp_path)) == {"here"}


def test_the_command_line_keeps_a_mirror(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "toy", "run", "--set", "rounds=1", "--mirror", mirror_at(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert copy_of(tmp_path) == contents(tmp_path / "run")
