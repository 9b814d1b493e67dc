"""The folders that a study prepares."""

import os
import signal
import subprocess
import sys
import time

import pytest

from eva.errors import EvaError, RecipeError
from eva.study.prepare import folders, make_folder, make_folders
from tests.study.small import small

PYTHON = f"{sys.executable} -c"
WRITE = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'x').write_text('1')"


def command(code: str) -> str:
    return f'{PYTHON} "{code}" {{out}}'


def all_made(study, home):
    return list(make_folders(study, home, here=home.parent, jobs=2))


def test_a_folder_is_made_once(tmp_path):
    study = small(prepare={"a": command(WRITE), "b": "eva new {out}"})
    assert all_made(study, tmp_path / "home") == [(1, 2), (2, 2)]
    found = folders(study, tmp_path / "home", tmp_path)
    assert (found["a"] / "x").read_text() == "1"
    assert (found["b"] / "recipe.yaml").exists()
    assert {path.name for path in (tmp_path / "home/prepared").iterdir()} == {
        *(path.name for path in found.values()),
        *(f"{path.name}.log" for path in found.values()),
    }
    stamp = found["a"].stat().st_mtime_ns
    assert all_made(study, tmp_path / "home") == []
    assert found["a"].stat().st_mtime_ns == stamp
    other = folders(small(prepare={"a": command(WRITE) + " "}), tmp_path / "home", tmp_path)
    assert other["a"] != found["a"]


def test_a_command_that_names_a_changed_file_makes_another_folder(tmp_path):
    study = small(prepare={"a": "sh ./make.sh {out} --data=mix.json --seed=1"})
    found = set()
    for make, mix in (("a", "1"), ("b", "1"), ("b", "2"), ("b", "2")):
        (tmp_path / "make.sh").write_text(make)
        (tmp_path / "mix.json").write_text(mix)
        found |= {folders(study, tmp_path / "home", tmp_path)["a"]}
    assert len(found) == 3
    long = small(prepare={"a": f"python -c '{'1;' * 300}' {{out}}", "b": "python -c '' {out}"})
    assert len(folders(long, tmp_path / "home", tmp_path)) == 2


def test_a_half_made_folder_is_removed_first(tmp_path):
    study = small(prepare={"a": command(WRITE)})
    [path] = folders(study, tmp_path / "home", tmp_path).values()
    part = path.with_name(path.name + ".part")
    part.mkdir(parents=True)
    (part / "torn").write_text("half")
    assert all_made(study, tmp_path / "home") == [(1, 1)]
    assert [file.name for file in path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (command("print('one'); raise SystemExit('no luck')"), r"prepare\.a failed: .*: no luck;"),
        (command("import os; os._exit(3)"), "it left with 3"),
        (command("pass"), "it ended well but made no folder {out}"),
        ("no-such-program {out}", r"no-such-program cannot be started \(No such file"),
    ],
)
def test_a_command_that_fails_is_named_with_its_last_line(tmp_path, text, said):
    with pytest.raises(EvaError, match=said) as error:
        all_made(small(prepare={"a": text}), tmp_path / "home")
    assert text in str(error.value)
    assert not any((tmp_path / "home/prepared").glob("a-*[0-9a-f]"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("make it", "'make it' does not say where its folder is; name it as {out}"),
        ("make 'it", r"prepare\.a: \"make 'it\" is no command: No closing quotation"),
    ],
)
def test_a_command_that_cannot_be_right_is_refused_at_once(tmp_path, text, said):
    with pytest.raises(RecipeError, match=said):
        folders(small(prepare={"a": text}), tmp_path / "home", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_put_in_its_place_says_so(tmp_path):
    path = tmp_path / "a-1"
    path.mkdir()
    (path / "taken").write_text("")
    with pytest.raises(EvaError, match="cannot write"):
        make_folder(lambda told: None, command(WRITE), path, tmp_path)


def test_a_killed_study_leaves_no_command_behind_and_goes_on(tmp_path):
    slow = "import time, sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(); " \
           "(p / 'x').write_text('1'); print('here', flush=True); " \
           f"time.sleep(0 if pathlib.Path('{tmp_path}/fast').exists() else 600)"  # fmt: skip
    text = command(slow)
    code = (
        "from pathlib import Path; from tests.study.small import small; "
        "from eva.study.prepare import make_folders; "
        f"list(make_folders(small(prepare={{'a': {text!r}}}), Path({str(tmp_path / 'home')!r}), "
        f"here=Path({str(tmp_path)!r}), jobs=1))"
    )
    [path] = folders(small(prepare={"a": text}), tmp_path / "home", tmp_path).values()
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        log = path.with_name(path.name + ".log")
        wait_for(lambda: log.exists() and b"here" in log.read_bytes())
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()

    (tmp_path / "fast").touch()
    began = time.monotonic()
    assert all_made(small(prepare={"a": text}), tmp_path / "home") == [(1, 1)]
    assert time.monotonic() - began < 30  # the sleeper, which held the log, is gone
    assert (path / "x").read_text() == "1"


def wait_for(is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
