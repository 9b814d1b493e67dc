"""Evolving in several processes, for servers that answer faster than one process can ask.

Each writes the children of some of the parents, over connections of its own. The children are those
that one process would write. All keep their answers in the same file, so they share an account and
a budget, and what is kept is not paid for again; where nothing is kept, each has a budget.
"""

import logging
import logging.handlers
import pickle
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Protocol, TypeAlias

from eva import processes
from eva.errors import BackEndError, EvaError
from eva.evolve.writing import Refusals
from eva.protocols import Evolver, Policy
from eva.records import Child, Prompt, Response, Sampling, ScoredPrompt

PRELOAD = ("eva.build.creators", "eva.evolve.evol_instruct", "eva.backends.http")
"""What each process needs."""


class Shared(Evolver, Protocol):
    """An evolver whose work can be shared out."""

    def children_of(
        self, chosen: range, parents: Sequence[ScoredPrompt], policy: Policy, seed: int
    ) -> list[Child]:
        """The children of the chosen ones among the parents of a call."""
        ...

    def release(self) -> None:
        """Give memory back, and close connections."""
        ...


Build: TypeAlias = Callable[[], Shared]
"""Makes the evolver of one process; can be pickled."""


class Spread:
    """An evolver in processes of its own, which start with the first call, until released."""

    def __init__(self, build: Build, count: int) -> None:
        """Start nothing yet.

        Args:
            build: Makes the evolver of one process.
            count: The number of processes.
        """
        self._build, self._count, self._refusals = build, count, Refusals()
        self._team: dict[Connection, ForkServerProcess] = {}

    def __call__(
        self, parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int
    ) -> list[Child]:
        """The children of all parents, in their order; `policy` is not asked.

        Raises:
            BackEndError: A process ended, or says that nothing can be asked any more. The others
                write what they can first: what they were answered is kept.
        """
        for _ in range(self._count - len(self._team)):
            build, level = self._build, logging.getLogger("eva").getEffectiveLevel()
            pipe, process = processes.started(_work, (build, level), PRELOAD, daemon=True)
            self._team[pipe] = process
        try:
            return self._refusals.checked(self._written(parents, seed))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """End the processes; what they were answered is kept."""
        for process in self._team.values():
            process.terminate()
        processes.end([*self._team.values()])
        for pipe in self._team:
            pipe.close()
        self._team.clear()

    def _written(self, parents: Sequence[ScoredPrompt], seed: int) -> list[Child]:
        order, size = pickle.dumps((parents, seed), pickle.HIGHEST_PROTOCOL), len(parents)
        said: dict[Connection, list[Child] | EvaError] = {}
        for i, pipe in enumerate(self._team):
            try:
                pipe.send_bytes(order)
                pipe.send(range(size * i // self._count, size * (i + 1) // self._count))
            except OSError:
                said[pipe] = self._ended(pipe)
        while waiting := [pipe for pipe in self._team if pipe not in said]:
            for ready in wait(waiting):
                assert isinstance(ready, Connection)
                self._hear(ready, said)
        return [child for pipe in self._team for child in _children(said[pipe])]

    def _hear(self, pipe: Connection, said: dict[Connection, list[Child] | EvaError]) -> None:
        """Take the next word of a process: something to log, or what became of its share."""
        try:
            word: logging.LogRecord | list[Child] | EvaError = pipe.recv()
        except (EOFError, OSError):
            word = self._ended(pipe)
        if isinstance(word, logging.LogRecord):
            logging.getLogger(word.name).handle(word)
        else:
            said[pipe] = word

    def _ended(self, pipe: Connection) -> BackEndError:
        return BackEndError(
            f"a process that evolves {processes.how_it_ended(self._team[pipe])}; run the same "
            "command again: what was answered is kept (with creator.evolve.processes=1 it shows "
            "what went wrong)"
        )


def _children(said: list[Child] | EvaError) -> list[Child]:
    if isinstance(said, EvaError):
        raise said
    return said


# ---------------------------------------------------------------- in the process


def _work(build: Build, level: int, pipe: Connection) -> None:
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt), ExitStack() as stack:
        teller = _Teller(pipe)
        logging.getLogger("eva").addHandler(teller)
        logging.getLogger("eva").setLevel(level)
        evolver = build()
        stack.callback(evolver.release)
        while True:
            parents, seed = pickle.loads(pipe.recv_bytes())
            teller.tell(_tried(evolver, pipe.recv(), parents, seed))


class _Teller(logging.handlers.QueueHandler):
    """Tells what is logged, and what was written, through one pipe."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]  # the pipe is the queue
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record; the handler's lock is held."""
        with suppress(OSError):
            self._pipe.send(record)

    def tell(self, said: list[Child] | EvaError) -> None:
        """Send what became of a share."""
        self.acquire()
        try:
            self._pipe.send(said)
        finally:
            self.release()


def _tried(
    evolver: Shared, share: range, parents: Sequence[ScoredPrompt], seed: int
) -> list[Child] | EvaError:
    try:
        return evolver.children_of(share, parents, _nobody, seed)
    except EvaError as error:
        return error


def _nobody(
    prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
) -> list[list[Response]]:
    raise AssertionError("the current policy lives in another process")
