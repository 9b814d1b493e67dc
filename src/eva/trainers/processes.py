"""A learner's program: its output goes to a log, and it does not outlive eva."""

import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from eva.errors import BackEndError
from eva.serving.programs import ended, guarded, tail
from eva.serving.programs import program as program
from eva.store import write_whole

GRACE = 35
"""Seconds between asking a group to end and ending it; torchrun gives its own workers 30."""


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
        who = "the learner's command (learner.run or learner.launch)"
        with guarded(command, file, full, grace=GRACE, who=who) as process:
            code = process.wait()
        if not log.exists():  # a learner may clear its folder, of what another update left there
            file.seek(0)
            write_whole(log, [file.read()])
    if code != 0:
        raise BackEndError(
            f"the learner's command {ended(code)}: {shlex.join(command)}; mend it and run the "
            f"same command again; the last lines of its log, {log}:\n{tail(log, begin)}"
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
