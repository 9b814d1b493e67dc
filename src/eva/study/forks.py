"""Functions in processes of their own, side by side: none outlives the process that asked for it.

Each task writes what it prints to a log, which it holds for as long as it, or what it started,
lives: what a killed study leaves behind for a moment never meets the study that goes on.
"""

import faulthandler
import fcntl
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TypeAlias

from eva import processes
from eva.errors import EvaError, RunDirError
from eva.store import cannot_write

Tell: TypeAlias = Callable[[int], None]
"""Tells the process that asked how far a task is."""
Said: TypeAlias = tuple[int | None, str | None]
"""How far a task is, or None and why it failed, if it did, at its end."""


@dataclass(frozen=True)
class Task:
    """A call in a process of its own."""

    call: Callable[..., None]
    """An importable function; its first argument is a `Tell`, then come `args`."""
    args: tuple[object, ...]
    """Whatever can be pickled."""
    log: Path
    """Where its output goes, after what is there."""
    patience: float = 60.0
    """Seconds that it waits for what a killed attempt left to let go of its log."""


@dataclass(frozen=True)
class News:
    """How far a task is, or that it ended."""

    task: Task
    """The task."""
    told: int | None
    """What it told; None if it ended."""
    failed: str | None = None
    """Why it ended, in a sentence; None if it ended well."""


def forked(tasks: Iterable[Task], jobs: int, preload: Sequence[str] = ()) -> Iterator[News]:
    """Run tasks in up to `jobs` processes; yields what they tell, and each end.

    Leaving the iterator early ends all of them.

    Args:
        tasks: What to run, in this order.
        jobs: Processes side by side.
        preload: Modules that tasks need, imported once; the first call of a process decides.
    """
    running: dict[Connection, tuple[Task, ForkServerProcess]] = {}
    waiting = iter(tasks)
    try:
        while True:
            for task in islice(waiting, jobs - len(running)):
                pipe, process = processes.started(_main, (task,), [__name__, *preload])
                running[pipe] = task, process
            if not running:
                return
            for ready in wait([*running]):
                assert isinstance(ready, Connection)
                task, process = running[ready]
                told, failed = _said(ready, process, task.log)
                if told is None:
                    del running[ready]
                    ready.close()
                    processes.end([process])
                yield News(task, told, failed)
    finally:
        for _, process in running.values():
            process.terminate()
        processes.end([process for _, process in running.values()])


def _said(pipe: Connection, process: ForkServerProcess, log: Path) -> Said:
    """The next word of a process; one that ends without a word has failed."""
    try:
        said: Said = pipe.recv()
    except (EOFError, OSError):
        how = processes.how_it_ended(process)
        return None, f"its process {how} before it was done; logs/study.log says more"
    return said


# ---------------------------------------------------------------- in the process


def _main(task: Task, pipe: Connection) -> None:
    try:
        _hold(task.log, task.patience)
        task.call(lambda told: pipe.send((told, None)), *task.args)
    except KeyboardInterrupt:
        sys.exit(130)
    except EvaError as error:
        if error.__cause__:  # of a plug-in, say
            traceback.print_exc()
        pipe.send((None, str(error)))
    except Exception as error:  # noqa: BLE001  # the top of a process
        traceback.print_exc()
        pipe.send((None, f"{type(error).__name__}: {error}"))
    else:
        pipe.send((None, None))


def _hold(log: Path, patience: float) -> None:
    """Send all output of this process, and of what it starts, to a log that it alone holds."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise cannot_write(log, error) from error
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise RunDirError(
                    f"{log} is still written by a process of an earlier attempt; end that one"
                ) from error
            time.sleep(0.05)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    faulthandler.enable(2)
