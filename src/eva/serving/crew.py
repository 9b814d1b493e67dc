"""Workers that take requests from one iterator, so that none waits for a batch to be complete."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""What each worker does, until there is nothing left to do."""


class Crew:
    """So many workers, and as many spare ones."""

    def __init__(self, work: Work, size: int) -> None:
        self._work = work
        self._size = self._spare = size
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, broken: "asyncio.Future[None]") -> None:
        """Let all work to the end, or to the first error of one of them or of `broken`."""

        async def watch() -> None:
            await asyncio.shield(broken)

        try:
            async with asyncio.TaskGroup() as self._group:
                watching = self._group.create_task(watch())
                for _ in range(self._size):
                    self._add(self._group)
                while self._tasks:
                    await asyncio.wait(self._tasks)
                watching.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    def relieve(self) -> None:
        """A worker waits to try again; a spare one goes on in its place, while there are any."""
        if self._spare and self._group is not None and len(self._tasks) >= self._size:
            self._spare -= 1
            self._add(self._group)

    def _add(self, group: asyncio.TaskGroup) -> None:
        task = group.create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class InRows(Generic[P, T]):
    """A function whose calls wait for one another, and are then made in a row.

    What a loop is about to do goes first. Calls made one by one, between sending and receiving,
    take longer: a processor's caches hold the one or the other.
    """

    def __init__(self, function: Callable[P, T]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._row: list[tuple[Callable[[], T], asyncio.Future[T]]] = []

    async def made(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises; RuntimeError for what would stop the loop itself."""
        if not self._row:
            self._loop.call_soon(self._make)
        future: asyncio.Future[T] = self._loop.create_future()
        self._row.append((partial(self._function, *args, **kwargs), future))
        return await future

    def _make(self) -> None:
        row, self._row = self._row, []
        for call, future in row:
            if future.cancelled():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  # it belongs to who waits for it
                future.set_exception(_bearable(error))


def _bearable(error: BaseException) -> Exception:
    """An error that a loop passes on, where it would take this one for its own."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{error!r} was raised among requests")
