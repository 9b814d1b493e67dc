"""Evolving in several processes, for servers that answer faster than one process can ask.

Each writes the children of some of the parents, over connections of its own. All keep their answers
in the same file, so they share an account, and what one has paid for no other pays for again. The
children are those that one process would write.
"""

import pickle
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Protocol, TypeAlias

from eva import processes
from eva.errors import BackEndError, EvaError
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
        self._build, self._count = build, count
        self._team: dict[Connection, ForkServerProcess] = {}

    def __call__(
        self, parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int
    ) -> list[Child]:
        """The children of all parents, in their order; `policy` is not asked.

        Raises:
            BackEndError: A process ended, or says that nothing can be asked any more.
        """
        for _ in range(self._count - len(self._team)):
            pipe, process = processes.started(_work, (self._build,), PRELOAD)
            self._team[pipe] = process
        try:
            return self._written(parents, seed)
        except BaseException:
            self.release()  # the others have nothing to go on for
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
        for i, pipe in enumerate(self._team):
            pipe.send_bytes(order)
            pipe.send(range(size * i // self._count, size * (i + 1) // self._count))
        children: dict[Connection, list[Child]] = {}
        while waiting := [pipe for pipe in self._team if pipe not in children]:
            for ready in wait(waiting):
                assert isinstance(ready, Connection)
                children[ready] = self._said(ready)
        return [child for pipe in self._team for child in children[pipe]]

    def _said(self, pipe: Connection) -> list[Child]:
        try:
            said: list[Child] | EvaError = pipe.recv()
        except (EOFError, OSError) as error:
            raise BackEndError(
                f"a process that evolves {processes.how_it_ended(self._team[pipe])}; run the same "
                "command again: what was answered is kept (with creator.evolve.processes=1 it "
                "shows what went wrong)"
            ) from error
        if isinstance(said, EvaError):
            raise said
        return said


# ---------------------------------------------------------------- in the process


def _work(build: Build, pipe: Connection) -> None:
    processes.begin()
    evolver = build()
    try:
        while True:
            parents, seed = pickle.loads(pipe.recv_bytes())
            pipe.send(_tried(evolver, pipe.recv(), parents, seed))
    except (EOFError, KeyboardInterrupt):
        pass  # it is not needed any more
    finally:
        evolver.release()


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
