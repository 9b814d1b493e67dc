"""A program in a process group of its own, which does not outlive eva.

A second, tiny process watches over the group. It learns of eva's end from a pipe that the system
closes, however eva ends (``kill -9`` included), and then ends the group.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from eva.errors import BackEndError, RecipeError

TAIL_LINES = 12
"""Lines of a log that an error shows."""
TAIL_BYTES = 3000
"""Upper bound on what it shows, in bytes."""
LOOK = 0.02
"""Seconds between two looks at a group that ends."""
LAST = 10.0
"""Seconds that a killed group has to be gone; only what hangs in the kernel takes longer."""
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


@contextmanager
def guarded(
    command: Sequence[str], file: IO[bytes], env: Mapping[str, str], *, grace: int, who: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command in a group of its own; leaving the context ends the group.

    Args:
        command: The program and its arguments.
        file: Where its output goes.
        env: Its environment variables, all of them.
        grace: Seconds between asking the group to end and ending it.
        who: What the program is and where the recipe names it, for errors.

    Raises:
        BackEndError: The program cannot be started.
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", GUARD, str(grace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with guard:
        assert guard.stdin is not None
        process = _started(command, file, env, who)
        guard.stdin.write(b"%d\n" % process.pid)
        guard.stdin.flush()
        try:
            yield process
        finally:
            _end(process, grace)
            guard.communicate(b"done\n")


def _started(
    command: Sequence[str], file: IO[bytes], env: Mapping[str, str], who: str
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
            close_fds=False,  # of eva's files it inherits those alone that are marked inheritable
        )
    except OSError as error:
        raise BackEndError(
            f"{who} cannot be started ({error.strerror}): {shlex.join(command)}; correct it in the "
            "recipe"
        ) from error


def signalled(group: int, number: signal.Signals) -> None:
    """Send a signal to all that is left of a group, which may be nothing."""
    with suppress(ProcessLookupError, PermissionError):  # the latter on macOS, of a dead one
        os.killpg(group, number)


def _end(process: "subprocess.Popen[bytes]", grace: int) -> None:
    """End a program and what it started in its group, which may live on without the program."""
    signalled(process.pid, signal.SIGTERM)
    if not _has_ended(process, grace):
        signalled(process.pid, signal.SIGKILL)
        _has_ended(process, LAST)
    process.wait()


def _has_ended(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait for the whole group; whether it ended within so many seconds."""
    until = time.monotonic() + seconds
    while process.poll() is None or _lives(process.pid):
        if time.monotonic() > until:
            return False
        time.sleep(LOOK)
    return True


def _lives(group: int) -> bool:
    """Whether any process of a group runs."""
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    # In a container nobody may collect the dead whose parent is gone; they are still in the group.
    stats = [_stat(path) for path in Path("/proc").glob("[0-9]*/stat")]
    return not stats or any(stat[2:3] == [str(group)] and stat[0] not in "ZX" for stat in stats)


def _stat(path: Path) -> list[str]:
    """State, parent, group, ... of a process; empty where it is gone."""
    try:
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def ended(code: int) -> str:
    """How a program ended, as a part of a sentence, of its exit code."""
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"


def tail(log: Path, begin: int = 0) -> str:
    """The last lines of a log, not before byte `begin`; of a progress bar its last state."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines if line.strip()]
    return "\n".join(shown[-TAIL_LINES:]) or "(it printed nothing)"
