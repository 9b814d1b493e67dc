"""Processes side by side, of which none outlives the one that asked."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eva import processes
from eva.study.forks import News, Task, forked
from tests.study import tasks


def task(path, call, *args, name="log"):
    return Task(call, args, path / f"{name}.log")


def is_free(log, seconds=5.0):
    """Whether nobody holds a log, soon."""
    deadline = time.monotonic() + seconds
    with log.open("rb") as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
            else:
                return True
    return False


def test_tasks_tell_how_far_they_are_and_print_to_their_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    one, two = (task(tmp_path, tasks.count, 2, name=name) for name in "ab")
    news = list(forked([one, two], jobs=2))
    assert [told.told for told in news if told.task == one] == [0, 1, None]
    assert [told.told for told in news if told.task == two] == [0, 1, None]
    assert all(told.failed is None for told in news)
    assert "counted 1 None\n" in one.log.read_text()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_no_more_than_jobs_run_at_a_time_and_all_run(tmp_path):
    many = [task(tmp_path, tasks.count, 1, name=str(number)) for number in range(5)]
    news = list(forked(many, jobs=1))
    assert [told.task for told in news] == [one for one in many for _ in (0, 1)]
    assert list(forked([], jobs=1)) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (tasks.refuse, "not here"),
        (tasks.break_down, "ValueError: no such thing"),
        (tasks.blame, "not here either"),
        (tasks.crash, "was killed by SIGABRT before it was done"),
        (tasks.die, "was killed by SIGKILL before it was done"),
        (tasks.leave, "left with 3 before it was done"),
    ],
)
def test_a_task_that_fails_says_why_and_stops_no_other(tmp_path, call, said):
    bad, good = task(tmp_path, call, name="bad"), task(tmp_path, tasks.count, 0, name="good")
    ends = {told.task.log.stem: told.failed for told in forked([bad, good], jobs=1)}
    assert said in ends["bad"]
    assert ends["good"] is None
    said = bad.log.read_text()
    assert ("Traceback" in said) == (call in (tasks.break_down, tasks.blame))
    assert ("ValueError: no such thing" in said) == (call in (tasks.break_down, tasks.blame))
    assert ("Fatal Python error" in said) == (call is tasks.crash)


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "cells").write_text("")
    [end] = forked([Task(tasks.count, (0,), tmp_path / "cells/a/log")], jobs=1)
    assert end.failed.startswith(f"cannot write {tmp_path}/cells/a/log: ")


def test_leaving_early_asks_the_tasks_to_end_with_all_that_they_started(tmp_path):
    one = task(tmp_path, tasks.sleep, str(tmp_path / "mark"))
    for told in forked([one], jobs=2):
        assert told.told
        break
    assert (tmp_path / "mark").read_text() == "asked"
    assert is_free(one.log, seconds=1)


def test_a_task_that_does_not_end_when_asked_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.2)
    one = task(tmp_path, tasks.stay)
    for told in forked([one], jobs=1):
        assert told.told
        break
    assert is_free(one.log, seconds=1)


def test_tasks_end_with_the_process_that_asked_even_if_it_is_killed(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from tests.study import tasks\n"
        "from eva.study.forks import Task, forked\n"
        f"log = Path({str(tmp_path / 'log')!r})\n"
        f"for told in forked([Task(tasks.sleep, ({str(tmp_path / 'mark')!r},), log)], 1):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The code stands at the top level of a script, without a guard: nobody runs it again.
    (tmp_path / "script.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{code}"
    )
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], check=False)
    assert done.returncode < 0
    assert is_free(tmp_path / "log", seconds=2)


def test_a_log_that_another_process_holds_is_waited_for(tmp_path):
    log = tmp_path / "log"
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a')\n"
        "fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(log)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        one = Task(tasks.count, (0,), log)
        assert list(forked([one], jobs=1)) == [News(one, None, None)]
        assert holder.wait() == 0


def test_a_log_that_is_never_let_go_is_an_error(tmp_path):
    log = tmp_path / "log"
    with log.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one = Task(tasks.count, (0,), log, patience=0.1)
        [end] = forked([one], jobs=1)
    assert "is still written by a process of an earlier attempt" in end.failed
