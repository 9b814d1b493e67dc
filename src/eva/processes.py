"""Processes that work for this one, side by side: none outlives it, whatever ends it.

A fork server imports what is heavy once; each process is a fork of it, and leads a process group of
its own, so that an interrupt at the terminal is this process's to pass on.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from threading import Thread
from types import FrameType, ModuleType

ALONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""The environment of processes that share a machine: one thread each."""
GRACE = 10.0
"""Seconds that a process has to end after it was asked to."""


def started(
    work: Callable[..., None],
    args: tuple[object, ...],
    preload: Sequence[str],
    *,
    daemon: bool = False,
) -> tuple[Connection, ForkServerProcess]:
    """Start a process; what it is told and tells goes through the pipe.

    Where SIGTERM asks it to end, KeyboardInterrupt is raised in `work`.

    Args:
        work: An importable function; its last argument is the other end of the pipe.
        args: The others; whatever can be pickled.
        preload: Modules that it needs, imported once; the first call of this process decides.
        daemon: Whether it is ended where this process ends of itself, instead of waited for; such a
            process starts none.
    """
    multiprocessing.set_forkserver_preload([__name__, *preload])
    context = multiprocessing.get_context("forkserver")
    mine, theirs = context.Pipe()
    # The fork server has the environment of the moment at which it began.
    environ = {**os.environ, **ALONE}
    process = context.Process(target=_begin, args=(environ, work, *args, theirs), daemon=daemon)
    with _alone():
        forkserver.ensure_running()
        process.start()
    theirs.close()
    return mine, process


def end(processes: Sequence[ForkServerProcess]) -> None:
    """Wait for processes that are about to end, and end them with all that they started."""
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):  # the latter on macOS, of a dead group
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def how_it_ended(process: ForkServerProcess) -> str:
    """What became of a process that ended without a word."""
    process.join()
    code = process.exitcode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with {code}"


@contextmanager
def _alone() -> Iterator[None]:
    """Start processes with the environment `ALONE` and without the script that asked for them.

    Python would import that script again in each of them: it may play a study at its top level, and
    the script of the command line takes most of a second. An interrupt at the terminal, whose group
    the fork server is in, waits until the process is there.
    """
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in ALONE}
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ALONE)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


# ---------------------------------------------------------------- in the process


def _begin(environ: Mapping[str, str], work: Callable[..., None], *args: object) -> None:
    """Lead a group, end with the process that asked, and do the work."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    collect_seldom()
    Thread(target=_end_with_parent, daemon=True, name="eva-orphans").start()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    work(*args)


def collect_seldom() -> None:
    """Look for garbage in cycles less often than Python does.

    Records are many and hold no cycles; looking at all of them again and again is a tenth of the
    time of an evolver that asks servers, and a seventh of a run on the playground.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)  # pragma: no cover  # nothing of it is left to be measured


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
