"""Programs in groups of their own: nothing of a group outlives its context."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from eva.serving.programs import guarded
from tests.trainers.test_processes import lives


def ended(words, tmp_path, *, grace=1):
    """The ids that a shell script wrote down, after its context, and the seconds that it took."""
    noted = tmp_path / "pids"
    script = f"{words}".replace("NOTED", str(noted))
    with (
        (tmp_path / "log").open("wb") as file,
        guarded(["bash", "-c", script], file, dict(os.environ), grace=grace, who="x") as process,
    ):
        while not noted.exists() or not noted.read_text().endswith("\n"):
            time.sleep(0.01)
        if "exit 3" in words:  # by itself
            process.wait()
        begun = time.monotonic()
    return [process.pid, *map(int, noted.read_text().split())], time.monotonic() - begun


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("sleep 61 & echo $! >> NOTED; exit 3", 0.9),
        (
            '(trap "" TERM; echo $BASHPID >> NOTED; sleep 61; sleep 61) & trap "exit 0" TERM; wait',
            5,
        ),
        ('trap "" TERM; echo $$ >> NOTED; sleep 61; sleep 61', 5),
    ],
    ids=["its leader died before", "its leader obeys and a child does not", "its leader does not"],
)
def test_a_group_ends_with_its_context_whatever_became_of_its_leader(words, seconds, tmp_path):
    pids, took = ended(words, tmp_path)
    assert not any(map(lives, pids))
    assert took < seconds


def test_a_program_that_ended_by_itself_costs_no_time(tmp_path):
    pids, took = ended("echo $$ > NOTED; exit 3", tmp_path, grace=10)
    assert not lives(pids[0])
    assert took < 1.0


def test_another_group_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "61"], start_new_session=True) as other:
        ended("sleep 61 & echo $! > NOTED; exit 3", tmp_path)
        assert other.poll() is None
        other.kill()
