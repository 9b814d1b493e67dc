"""Servers that are asked side by side: each request goes to the one with the fewest in flight.

A server that cannot be reached is set aside and tried again and again, while the others go on. If
it is told something before its first request (load the weights of a checkpoint), it is told again
whenever it may have been started anew. That is noticed by a connection which says nothing, and is
cut when the server's program ends.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

import aiohttp

from eva.errors import BackEndError, EvaError
from eva.serving.limits import Limit, wait

log = logging.getLogger(__name__)

TELL = 5.0
"""Seconds of silence after which a person is told."""
KNOCK = 10.0
"""Seconds that a server that was set aside has to answer when it is tried."""
BETWEEN_KNOCKS = 10.0
"""Longest time between two trials, in seconds."""
BEHIND = (502, 503, 504)
"""What a proxy says of a server that it cannot reach."""
WRONG_ADDRESS = (
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ClientConnectorCertificateError,
)
"""What does not pass by waiting; other trouble with TLS may."""

Prepare: TypeAlias = Callable[[aiohttp.ClientSession, str], Awaitable[None]]
"""Makes the server at an address ready for requests."""
Revive: TypeAlias = Callable[[str], None]
"""Starts the server at an address anew if its program has ended."""


class Server:
    """One of them, as this process knows it."""

    def __init__(self, url: str, limit: Limit, *, is_ready: bool) -> None:
        self.url = url
        self.limit = limit
        self.is_ready = is_ready
        """Whether it can be reached, as far as is known, and is prepared."""
        self.has_answered = False
        """Whether it ever answered a request as it should."""
        self.in_flight = 0
        self.held_until = 0.0
        """When it wants the next request, on the clock of the loop."""


class Pool:
    """The servers of one client. All its methods are called from the client's loop."""

    def __init__(
        self,
        servers: Sequence[Server],
        session: aiohttp.ClientSession,
        *,
        patience: float,
        prepare: Prepare | None,
        revive: Revive | None,
    ) -> None:
        self._servers = servers
        self._session = session
        self._patience = patience
        self._prepare, self._revive = prepare, revive
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._draw = random.SystemRandom().random  # when a server is tried changes no result
        self._silent_since: float | None = None
        self._has_told = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Fails where nothing can be asked any more."""
        for server in servers:
            if not server.is_ready:
                self._probe(server)

    async def acquire(self, avoid: Server | None = None) -> Server:
        """A place at a server, as soon as there is one; `avoid` is taken only if no other is free.

        Raises:
            BackEndError: None will come.
        """
        while (server := self._free(avoid)) is None:
            if self.broken.done():
                await self.broken
            place = self._loop.create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._wake()  # it was this one's turn
                raise
        server.in_flight += 1
        return server

    def release(self, server: Server) -> None:
        """Give a place back."""
        server.in_flight -= 1
        self._wake()

    def answered(self, server: Server) -> None:
        """A server gave an answer."""
        server.has_answered = True
        before = server.limit.size
        server.limit.answered()
        if server.limit.size > before:
            self._wake()  # there is one more place
        self._silent_since = None

    def hold(self, server: Server, seconds: float) -> None:
        """Send a server nothing for so long."""
        server.held_until = max(server.held_until, self._loop.time() + seconds)
        self._loop.call_later(seconds, self._wake_all)

    def set_aside(self, server: Server) -> None:
        """Send a server nothing until it can be reached again, and is prepared."""
        if server.is_ready:
            server.is_ready = False
            self._probe(server)

    @property
    def prepares(self) -> bool:
        """Whether a server must be prepared again after its connection was cut."""
        return self._prepare is not None

    @property
    def limits(self) -> dict[str, int]:
        """The limit of each server, by address."""
        return {server.url: server.limit.size for server in self._servers}

    def silence(self, reason: str) -> None:
        """No answer came, for this reason; where that goes on for too long, nothing can be asked.

        Raises:
            BackEndError: It went on for longer than the patience of the recipe.
        """
        now = self._loop.time()
        if self._silent_since is None:
            self._silent_since, self._has_told = now, False
        elif not self._has_told and now - self._silent_since > TELL:
            self._has_told = True
            log.warning("no server answers (%s); waiting for %g s", reason, self._patience)
        elif now - self._silent_since > self._patience:
            raise BackEndError(
                f"no server answered for {self._patience:g} s ({reason}); start the servers of "
                f"{', '.join(server.url for server in self._servers)}, or correct their addresses, "
                "and run the same command again: what was answered is kept"
            )

    @property
    def patience_left(self) -> float:
        """Seconds until the servers will have been silent for too long; at least 0."""
        if self._silent_since is None:
            return self._patience
        return max(0.0, self._patience - (self._loop.time() - self._silent_since))

    async def is_there(self, server: Server) -> bool:
        """Whether a server answers a knock, whatever it says."""
        timeout = aiohttp.ClientTimeout(total=KNOCK)
        try:
            async with self._session.get(server.url, timeout=timeout) as response:
                return response.status not in BEHIND
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def forget_silence(self) -> None:
        """Begin anew to count how long no server answers."""
        self._silent_since = None

    async def close(self) -> None:
        """End what watches over the servers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.broken.cancel()

    def _free(self, avoid: Server | None) -> Server | None:
        best, best_rank = None, (True, 0)
        now = self._loop.time()
        for server in self._servers:
            if (
                server.is_ready
                and server.in_flight < server.limit.size
                and server.held_until <= now
            ):
                rank = (server is avoid, server.in_flight)
                if best is None or rank < best_rank:
                    best, best_rank = server, rank
        return best

    def _wake(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._waiting:
            self._wake()

    def _probe(self, server: Server) -> None:
        self._keep(self._back(server))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _back(self, server: Server) -> None:
        """Wait until a server is there, and ready."""
        for failures in range(1, 2**31):
            try:
                if self._revive is not None:
                    await asyncio.to_thread(self._revive, server.url)
                timeout = aiohttp.ClientTimeout(total=KNOCK)
                async with self._session.get(server.url, timeout=timeout):
                    pass  # any answer will do
                if self._prepare is not None:
                    await self._prepared(server, self._prepare)
                break
            except EvaError as error:
                return self.fail(error)
            except WRONG_ADDRESS as error:
                return self.fail(wrong_address(server, error))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                try:
                    self.silence(f"{server.url} cannot be reached: {error or 'no answer'}")
                except BackEndError as silent:
                    return self.fail(silent)
                await asyncio.sleep(min(BETWEEN_KNOCKS, wait(failures, 0.5 + self._draw() / 2)))
            except Exception as error:  # noqa: BLE001  # else all would wait for this task for ever
                return self.fail(_unprepared(server, error))
        server.is_ready = True
        self._wake_all()

    async def _prepared(self, server: Server, prepare: Prepare) -> None:
        """Prepare a server, and notice from before that on when its program ends."""
        url = urlsplit(server.url)
        is_tls = url.scheme == "https"
        reader, writer = await asyncio.open_connection(
            url.hostname, url.port or (443 if is_tls else 80), ssl=is_tls or None
        )

        async def watch() -> None:
            try:
                await reader.read()
            except OSError:
                pass
            finally:
                writer.close()
            self.set_aside(server)

        self._keep(watch())
        await prepare(self._session, server.url)

    def fail(self, error: EvaError) -> None:
        """Have nothing asked any more, for this reason."""
        if not self.broken.done():
            self.broken.set_exception(error)
            self.broken.exception()  # it is not always waited for
        self._wake_all()


def wrong_address(server: Server, error: Exception) -> BackEndError:
    """What to say of a server that cannot be asked, however long one waits."""
    return BackEndError(
        f"{server.url} cannot be asked ({error}); correct the address, or its certificate, and run "
        "the same command again"
    )


def _unprepared(server: Server, error: Exception) -> BackEndError:
    return BackEndError(
        f"{server.url} cannot be made ready ({type(error).__name__}: {error}); see that it is a "
        "server of the kind that the recipe names, and run the same command again"
    )
