"""What was started ends: after a kill of the program, of eva, and in an orderly way."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eva.errors import BackEndError
from eva.protocols import Learner
from eva.records import Checkpoint, Rollout
from eva.trainers import processes
from eva.trainers.processes import program, ran
from tests.learn.runs import file_bytes
from tests.trainers.conftest import SEED

Make = Callable[..., Learner]
SLEEPER = """
import os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}\\n")
time.sleep(300)
"""
"""A program with a child of its own; both sleep."""
EVA = """
import signal, sys
from pathlib import Path
from eva.trainers.processes import ran
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
ran([sys.executable, "-c", sys.argv[1], sys.argv[2]], log=Path(sys.argv[3]), env={})
"""


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie, which only its parent could remove."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def waited(claim: Callable[[], object]) -> bool:
    end = time.monotonic() + 30
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def written(path: Path) -> list[int]:
    """The process ids in a file, once it is there whole."""
    assert waited(lambda: path.exists() and path.read_text().endswith("\n"))
    return [int(word) for word in path.read_text().split()]


@pytest.fixture
def eva(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """An eva whose program sleeps."""
    words = [SLEEPER, str(tmp_path / "pids"), str(tmp_path / "log")]
    with subprocess.Popen([sys.executable, "-c", EVA, *words], stderr=subprocess.DEVNULL) as run:
        yield run
        run.kill()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_program_and_its_children_end_with_eva(
    eva: "subprocess.Popen[bytes]", tmp_path: Path, how: signal.Signals
) -> None:
    pids = written(tmp_path / "pids")
    assert all(map(lives, pids))
    eva.send_signal(how)
    eva.wait()
    assert waited(lambda: not any(map(lives, pids)))


STUBBORN = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), os._exit(0)))
Path(sys.argv[1]).write_text(f"{os.getpid()}\\n")
time.sleep(300)
"""
"""A program that takes its time to end."""
ALONE = """
import sys
from pathlib import Path
from eva.trainers.processes import alone, ran
with alone(Path(sys.argv[4])):
    ran([sys.executable, "-c", sys.argv[1], sys.argv[2]], log=Path(sys.argv[3]), env={})
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_the_next_attempt_waits_for_what_a_killed_one_left(tmp_path: Path) -> None:
    words = [STUBBORN, str(tmp_path / "pid"), str(tmp_path / "log"), str(tmp_path / "learn")]
    with subprocess.Popen([sys.executable, "-c", ALONE, *words]) as run:
        (pid,) = written(tmp_path / "pid")
        run.kill()
    assert lives(pid)
    with processes.alone(tmp_path / "learn"):
        assert not lives(pid)


def test_a_program_that_never_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE", -9)  # a second in all
    with (
        processes.alone(tmp_path),
        pytest.raises(BackEndError, match="of an earlier attempt still runs in"),
        processes.alone(tmp_path),
    ):
        pass


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_the_workers_of_torchrun_end_with_eva(tmp_path: Path) -> None:
    # They have sessions of their own; torchrun ends them when it is asked to end itself.
    script = tmp_path / "sleep.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\n"
        "Path(sys.argv[1] + os.environ['RANK']).write_text(f'{os.getpid()}\\n')\ntime.sleep(300)\n"
    )
    launch = [program("torchrun", "learner.launch", near_python=True), "--standalone"]
    command = [*launch, "--nproc-per-node", "2", str(script), str(tmp_path / "rank")]
    text = "import sys\nfrom pathlib import Path\nfrom eva.trainers.processes import ran\n"
    text += "ran(sys.argv[2:], log=Path(sys.argv[1]), env={})\n"
    with subprocess.Popen([sys.executable, "-c", text, str(tmp_path / "log"), *command]) as run:
        pids = [*written(tmp_path / "rank0"), *written(tmp_path / "rank1")]
        run.kill()
    assert waited(lambda: not any(map(lives, pids)))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_program_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
    monkeypatch.setattr(processes, "GRACE", 1)
    words = [sys.executable, "-c", deaf, str(tmp_path / "pids")]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            ran(words, log=tmp_path / "log", env={})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert waited(lambda: not lives(written(tmp_path / "pids")[0]))


def test_a_killed_program_is_named_by_its_signal(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(BackEndError, match=r"was ended by signal 9 \(Killed\)") as caught:
        ran([sys.executable, "-c", program], log=tmp_path / "log", env={})
    assert str(caught.value).endswith("(it printed nothing)")


def test_a_program_killed_half_way_makes_a_sound_checkpoint_in_its_second_attempt(
    learner_of: Callable[..., Learner], start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    program = """
    import os, shutil, signal, sys
    from pathlib import Path
    start, out, folder = map(Path, sys.argv[1:])
    mine = folder / "mine"
    if not mine.exists():
        mine.mkdir()
        weights = (start / "model.safetensors").read_bytes()
        (out / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        (out / "stale.safetensors").write_bytes(b"")
        os.kill(os.getpid(), signal.SIGKILL)
    shutil.copytree(start, out, dirs_exist_ok=True)
    """
    learner = learner_of(textwrap.dedent(program), "{start}", "{out}", "{folder}")
    with pytest.raises(BackEndError, match="signal 9"):
        learner(start, lessons, out=out, seed=SEED)
    assert (out / "checkpoint.part").exists()
    assert not (out / "checkpoint").exists()
    made = learner(start, lessons, out=out, seed=SEED)
    assert file_bytes(Path(made.uri)) == file_bytes(Path(start.uri))
