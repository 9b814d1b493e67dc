"""The run directory: whole files, one writer, errors that say what to do."""

import fcntl
import os
import resource
import signal
import subprocess
import sys

import pytest

from eva import store
from eva.errors import RunDirError
from eva.recipe import load
from eva.records import Checkpoint, Message, Prompt
from eva.start import logged, quiet, run_recipe
from tests.world import contents, played, recipe


def prompt(text: str) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),))


def test_json_is_sorted_unless_its_order_says_something(tmp_path):
    path = tmp_path / "x.json"
    store.write_json(path, {"b": 1, "a": 2})
    assert path.read_text() == '{\n "a": 2,\n "b": 1\n}\n'
    store.write_json(path, {"b": 1, "a": 2}, is_sorted=False)
    assert path.read_text() == '{\n "b": 1,\n "a": 2\n}\n'


def test_lines_are_cut_at_line_feeds_alone(tmp_path):
    prompts = [prompt("a\u2028b\x85c\x0bd"), prompt("e\nf\r\ng")]
    store.write_records(tmp_path / "x.jsonl", prompts)
    assert store.read_records(tmp_path / "x.jsonl", Prompt) == prompts


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    store.write_records(path, [prompt("a"), prompt("b")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunDirError, match=r"x\.jsonl:2 is no Prompt .*restore it from a copy"):
        store.read_records(path, Prompt)


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.jsonl"

    def parts():
        yield b"first half"
        raise ValueError("the plug-in failed in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        store.write_whole(path, parts())
    assert not path.exists()


def test_what_a_kill_left_beside_a_file_is_swept(tmp_path):
    played(tmp_path / "run")
    (tmp_path / "run/rounds/001/lessons.jsonl.part").write_bytes(b"{")
    played(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(tmp_path):
    played(tmp_path / "whole")
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # the kernel refuses longer files
        try:
            played(tmp_path / "run")
        except RunDirError as error:
            os._exit(0 if "free some space and run the same command again" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    played(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirError, match="make the folder writable"):
        played(tmp_path / "run")


def test_a_run_directory_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match=r"cannot write .*lock"):
        played(tmp_path / "file")


def test_two_runs_cannot_write_one_directory(tmp_path):
    held = "import sys; from pathlib import Path; from eva.store import held\n" \
           "from eva.start import quiet\n" \
           "with held(Path(sys.argv[1]), 'x: 1', {}, agree=lambda a, b: None, progress=quiet):\n" \
           "    print('holding', flush=True); sys.stdin.read()\n"  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "holding\n"
        with pytest.raises(RunDirError, match=f"being written by process {other.pid} on .* since"):
            played(tmp_path / "run")
        other.stdin.close()


def test_the_lock_of_a_dead_process_does_not_hold(tmp_path):
    (tmp_path / "run/logs").mkdir(parents=True)
    (tmp_path / "run/logs/lock").write_text("process 1 on nowhere since ever\n")
    played(tmp_path / "run")


def test_an_empty_lock_is_still_a_lock(tmp_path):
    (tmp_path / "run/logs").mkdir(parents=True)
    with (tmp_path / "run/logs/lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunDirError, match="written by another process"):
            played(tmp_path / "run")


def test_another_recipe_is_refused_and_the_keys_are_listed(tmp_path):
    played(tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(RunDirError, match=r"n is 4 there and 5 here; learner\.lr is 1\.0 there"):
        played(tmp_path / "run", "n=5", "learner.lr=2.0")
    with pytest.raises(RunDirError, match="seed is 1 there and 2 here"):
        played(tmp_path / "run", "seed=2")
    with pytest.raises(RunDirError, match="rounds is 3 there and 2 here"):
        played(tmp_path / "run", "rounds=2")
    assert contents(tmp_path / "run") == before


def test_a_run_of_another_format_is_refused(tmp_path):
    played(tmp_path / "run")
    facts = tmp_path / "run/run.json"
    facts.write_text(facts.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(RunDirError, match="has format 99; this eva reads format 1"):
        played(tmp_path / "run")
    facts.write_text("[")
    with pytest.raises(RunDirError, match="no JSON object of a run; restore it"):
        played(tmp_path / "run")


def test_a_recipe_that_this_eva_cannot_read_is_refused(tmp_path):
    played(tmp_path / "run")
    (tmp_path / "run/recipe.yaml").write_text("name: x\nfuture: 1\n")
    with pytest.raises(RunDirError, match=r"recipe\.yaml in the run directory cannot be read"):
        played(tmp_path / "run")


def test_a_run_directory_can_be_moved_between_attempts(tmp_path):
    played(tmp_path / "a", "rounds=1")
    (tmp_path / "a").rename(tmp_path / "b")
    played(tmp_path / "b")
    played(tmp_path / "whole")
    assert contents(tmp_path / "b") == contents(tmp_path / "whole")


def test_a_checkpoint_outside_the_run_keeps_its_uri(tmp_path):
    folder = store.RunDir(tmp_path / "run", quiet)
    for uri in ("org/model", str(tmp_path / "elsewhere")):
        outside = Checkpoint(uri=uri, id="x")
        assert folder.relative(outside) == outside == folder.located(outside)
    inside = Checkpoint(uri=str(tmp_path / "run/rounds/000/learn/checkpoint"), id="x")
    assert folder.relative(inside).uri == "run:rounds/000/learn/checkpoint"
    assert folder.located(folder.relative(inside)) == inside


def test_progress_is_told_stage_by_stage(tmp_path):
    told = []
    progress = lambda *now: told.append(now)  # noqa: E731
    list(run_recipe(recipe("rounds=1"), tmp_path / "run", here=tmp_path, progress=progress))
    assert [t for t in told if t[0] == "solved"] == [
        ("solved", 0, 8), ("solved", 3, 8), ("solved", 6, 8), ("solved", 8, 8),
    ]  # fmt: skip


def test_each_attempt_has_a_log_with_times_and_the_error_that_ended_it(tmp_path):
    played(tmp_path / "run", "rounds=1")
    assert "made " in (tmp_path / "run/logs/attempt_1.log").read_text()
    (tmp_path / "run/rounds/001/pool.jsonl").write_text("{}\n")
    with pytest.raises(RunDirError):
        played(tmp_path / "run", "rounds=2")
    assert "stopped: RunDirError" in (tmp_path / "run/logs/attempt_2.log").read_text()


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match=r"cannot write .*below\.json"):
        store.write_json(tmp_path / "file/below.json", 1)
    with pytest.raises(RunDirError, match=r"cannot write .*learn"):
        store.Room(tmp_path / "file", quiet).folder("learn")


def test_given_prompts_that_cannot_be_used_are_kept_with_the_reason(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "0.5"}\n{"prompt": "0.25"}\n{"prompt": "0.5"}\n')
    more = ["creator=null", "evaluate=null", "rounds=1"]
    source = f"{{kind: jsonl, path: {tmp_path / 'p.jsonl'}}}"
    list(run_recipe(load("toy", [f"prompts={source}", *more]), tmp_path / "run", here=tmp_path))
    assert '"flaw":"row 3 repeats row 1 of p.jsonl"' in (tmp_path / "run/refused.jsonl").read_text()
    assert "refused prompt" in (tmp_path / "run/logs/attempt_1.log").read_text()


def test_a_folder_with_other_files_is_never_taken_for_a_run(tmp_path):
    (tmp_path / "home/sub").mkdir(parents=True)
    (tmp_path / "home/sub/film.part").write_text("precious")
    (tmp_path / "home/recipe.yaml").write_text("# my own\nbase: toy\n")
    with pytest.raises(RunDirError, match=r"no run directory and holds other files \(recipe.yaml"):
        played(tmp_path / "home")
    assert (tmp_path / "home/sub/film.part").read_text() == "precious"
    assert (tmp_path / "home/recipe.yaml").read_text().startswith("# my own")


def test_a_run_whose_prompts_changed_is_refused_and_a_moved_project_goes_on(tmp_path):
    source = tmp_path / "a/p.jsonl"
    source.parent.mkdir()
    source.write_text('{"prompt": "0.5"}\n{"prompt": "0.25"}\n')
    more = ["creator=null", "evaluate=null"]

    def run(folder, rounds):
        path = f"prompts={{kind: jsonl, path: {folder / 'p.jsonl'}}}"
        chosen = load("toy", [path, f"rounds={rounds}", *more])
        return list(run_recipe(chosen, folder / "run", here=folder))

    run(tmp_path / "a", 1)
    (tmp_path / "a").rename(tmp_path / "b")
    run(tmp_path / "b", 2)
    (tmp_path / "b/p.jsonl").write_text('{"prompt": "0.75"}\n')
    with pytest.raises(RunDirError, match=r"has changed since it began \(prompts\); restore it"):
        run(tmp_path / "b", 3)


def test_what_is_gone_or_damaged_is_named_with_what_to_do(tmp_path):
    played(tmp_path / "run", "rounds=2")
    state = tmp_path / "run/state.json"
    whole = state.read_text()
    for broken in ("{", "{}", "[]"):
        state.write_text(broken)
        with pytest.raises(RunDirError, match=r"state\.json was damaged .*restore it from a copy"):
            played(tmp_path / "run", "rounds=3")
    state.write_text(whole)
    (tmp_path / "run/rounds/002/pool.jsonl").unlink()
    with pytest.raises(RunDirError, match=r"pool\.jsonl is gone; restore it from a copy"):
        played(tmp_path / "run", "rounds=3")


def test_how_to_compute_may_change_on_the_way(tmp_path):
    from eva.recipe import as_yaml, differences, must_agree

    old = load("playground-eva")
    new = load("playground-eva", ["policy.rows=64", "policy.device=auto", "rounds=9"])
    assert len(differences(old, new)) == 3
    must_agree(as_yaml(old), as_yaml(new))


def test_what_a_learner_wrote_is_not_swept(tmp_path):
    played(tmp_path / "run")
    own = tmp_path / "run/rounds/000/learn/optimiser.part"
    own.write_text("the learner's")
    played(tmp_path / "run")
    assert own.exists()


def test_a_learner_finds_what_a_killed_attempt_of_the_same_update_left(tmp_path):
    folder = store.Room(tmp_path, quiet).folder("learn")
    (folder / "snapshot.json").write_text("{}")
    assert store.Room(tmp_path, quiet).folder("learn") == folder
    assert (folder / "snapshot.json").exists()


def test_a_numbered_part_is_made_once_and_all_parts_are_read_in_order(tmp_path):
    room, made = store.Room(tmp_path, quiet), []

    def make(text):
        made.append(text)
        return [prompt(text)]

    for number in (10, 9, 10):
        room.part("solved", number, Prompt, make, str(number))
    assert made == ["10", "9"]
    assert room.parts("solved", Prompt) == [prompt("9"), prompt("10")]
    assert room.parts("scored", Prompt) == []


def test_a_lock_or_log_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "run/logs").mkdir(parents=True)
    (tmp_path / "run/logs/lock").symlink_to("/dev/full")
    with pytest.raises(RunDirError, match=r"cannot write .*lock"):
        played(tmp_path / "run")
    with pytest.raises(RunDirError, match=r"cannot write .*x\.log"), logged(tmp_path / "no/x.log"):
        pass
