"""A program in a process group of its own: its output goes to a log, and it does not outlive eva.

A second, tiny process watches over the group. It learns of eva's end from a pipe that the system
closes, however eva ends (``kill -9`` included), and then ends the group.
"""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eva.errors import BackEndError, RecipeError
from eva.store import write_whole

GRACE = 35
"""Seconds between asking a group to end and ending it; torchrun gives its own workers 30."""
TAIL_LINES = 12
"""Lines of a log that an error shows."""
TAIL_BYTES = 3000
"""Upper bound on what it shows, in bytes."""
GUARD = """
import os, signal, sys, time
grace = int(sys.argv[1])
group = sys.stdin.readline()
if group and not sys.stdin.read():
    try:
        os.killpg(int(group), signal.SIGTERM)
        for _ in range(10 * grace):
            time.sleep(0.1)
            os.killpg(int(group), 0)
        os.killpg(int(group), signal.SIGKILL)
    except OSError:
        pass
"""
"""Reads the group's id, then waits: a word means that all is well, the bare end that eva died."""


def program(name: str, key: str, *, near_python: bool) -> str:
    """Where a program is; `near_python` looks beside the running interpreter first.

    Raises:
        RecipeError: There is no such program; `key` names the place in the recipe.
    """
    beside = str(Path(sys.executable).parent)
    found = (shutil.which(name, path=beside) if near_python else None) or shutil.which(name)
    if found is None:
        raise RecipeError(
            f"{key}: there is no program {name!r}; expected a path, or a name that is found on PATH"
        )
    return found


def ran(command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
    """Run a program to its end; what it prints is added to `log`.

    Args:
        command: The program and its arguments.
        log: The file that its output goes to; it is made if it is missing.
        env: Environment variables, beside those of eva itself.

    Raises:
        BackEndError: The program cannot be started, or its exit code is not 0.
    """
    with log.open("a+b") as file:
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        begin = file.tell()
        # Unbuffered, so that the log can be watched and its lines stand in order.
        full = {"PYTHONUNBUFFERED": "1", **os.environ, **env}
        with _guarded(command, file, full) as process:
            code = process.wait()
        if not log.exists():  # a learner may clear its folder, of what another update left there
            file.seek(0)
            write_whole(log, [file.read()])
    if code != 0:
        raise BackEndError(
            f"the learner's command {_ended(code)}: {shlex.join(command)}; mend it and run the "
            f"same command again; the last lines of its log, {log}:\n{_tail(log, begin)}"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one who runs a program in a folder.

    A program inherits the lock: where eva was killed, the next attempt waits until the program that
    it left has ended too, and nobody writes into what is being written.

    Raises:
        BackEndError: The other program does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "command.lock").open("ab") as file:
        os.set_inheritable(file.fileno(), True)
        for _ in range(10 * (GRACE + 10)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            raise BackEndError(
                f"a program of an earlier attempt still runs in {folder}; end it, and run the same "
                "command again"
            )
        yield


@contextmanager
def _guarded(
    command: Sequence[str], file: IO[bytes], env: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command in a group of its own, and end the group if this process is left early."""
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", GUARD, str(GRACE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with guard:
        assert guard.stdin is not None
        process = _started(command, file, env)
        guard.stdin.write(b"%d\n" % process.pid)
        guard.stdin.flush()
        try:
            yield process
        finally:
            _end(process)
            guard.communicate(b"done\n")


def _started(
    command: Sequence[str], file: IO[bytes], env: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
            close_fds=False,  # of eva's files it inherits the lock alone; see `alone`
        )
    except OSError as error:
        raise BackEndError(
            f"the learner's command cannot be started ({error.strerror}): {shlex.join(command)}; "
            "correct learner.run or learner.launch"
        ) from error


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program that still runs, and what it started in its group."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ended(code: int) -> str:
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"


def _tail(log: Path, begin: int) -> str:
    """The last lines of the log, from this attempt alone; of a progress bar its last state."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines if line.strip()]
    return "\n".join(shown[-TAIL_LINES:]) or "(it printed nothing)"
