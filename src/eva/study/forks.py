"""Functions in processes of their own, side by side: none outlives the process that asked for it.

A fork server imports what is heavy once. Each task is a fork of it, leads a process group of its
own and writes what it prints to a log, which it holds for as long as it, or what it started, lives:
what a killed study leaves behind for a moment never meets the study that goes on.
"""

import faulthandler
import fcntl
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from types import FrameType, ModuleType
from typing import TypeAlias

from eva.errors import EvaError, RunDirError
from eva.store import cannot_write

Tell: TypeAlias = Callable[[int], None]
"""Tells the process that asked how far a task is."""
Said: TypeAlias = tuple[int | None, str | None]
"""How far a task is, or None and why it failed, if it did, at its end."""

ALONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""The environment of processes that share a machine: one thread each."""
GRACE = 10.0
"""Seconds that a task has to end after it was asked to."""


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
    multiprocessing.set_forkserver_preload([__name__, *preload])
    running: dict[Connection, tuple[Task, ForkServerProcess]] = {}
    waiting = iter(tasks)
    try:
        while True:
            for task in islice(waiting, jobs - len(running)):
                pipe, process = _started(task)
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
                    _end([process])
                yield News(task, told, failed)
    finally:
        for _, process in running.values():
            process.terminate()
        _end([process for _, process in running.values()])


def _started(task: Task) -> tuple[Connection, ForkServerProcess]:
    context = multiprocessing.get_context("forkserver")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(task, theirs))
    with _alone():
        forkserver.ensure_running()
        process.start()
    theirs.close()
    return mine, process


@contextmanager
def _alone() -> Iterator[None]:
    """Start processes with the environment `ALONE` and without the script that asked for them.

    Python would import that script again in each of them: it may play a study at its top level, and
    the script of the command line takes most of a second.
    """
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in ALONE}
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ALONE)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def _said(pipe: Connection, process: ForkServerProcess, log: Path) -> Said:
    """The next word of a process; one that ends without a word has failed."""
    try:
        said: Said = pipe.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with {code}"
        return None, f"its process {how} before it was done; logs/study.log says more"
    return said


def _end(processes: Sequence[ForkServerProcess]) -> None:
    """Wait for processes that are about to end, and end them with all that they started."""
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):  # the latter on macOS, of a dead group
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


# ---------------------------------------------------------------- in the process


def _main(task: Task, pipe: Connection) -> None:
    os.setsid()
    # As in the command line: records hold no cycles, and looking for some takes a seventh of a run.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    Thread(target=_end_with_parent, daemon=True, name="eva-orphans").start()
    signal.signal(signal.SIGTERM, _interrupt)
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


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)  # pragma: no cover  # nothing of it is left to be measured


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
