"""One request, until it is answered or given up: which failures are tried again, and when.

=====================================  ===========================================================
what comes back                        what becomes of it
=====================================  ===========================================================
429, 503                               sent again, after Retry-After; many of them shrink the limit
408, 409, 425, other 5xx, no JSON,     sent again, up to `attempts` times while others are answered
cut, too late
cannot be reached                      the server is set aside; sent to another
401, 403, 404, a redirect              `Failed`; BackEndError where all requests are met so
other 4xx                              `Failed`, with the server's words
=====================================  ===========================================================
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import aiohttp
import orjson

from eva.errors import BackEndError
from eva.serving.limits import retry_after, wait
from eva.serving.pool import Pool, Server

OVERLOADED = (429, 503)
PASSING = (408, 409, 425)
"""With all other 5xx: failures of the moment."""
ALWAYS_WRONG = (401, 404)
"""What a wrong key, address or model name brings."""
WRONG = (*ALWAYS_WRONG, 403)
"""A single 403 may be about the request."""
WRONG_IN_A_ROW = 8
"""So many of `WRONG`, and no answer between them, are no matter of single requests."""
OVERLOADS = 10
"""Times `attempts`: how often a request may be met by an overload while others are answered."""
WORDS = 300
"""Characters of a server's words that an error shows."""


class OverBudget(Exception):
    """The budget is spent; a sentence for the person."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that has no answer."""

    reason: str
    """Why, in the server's words where it said something."""
    status: int | None = None
    """The HTTP status, where there was one."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An attempt without an answer."""

    kind: Literal["overloaded", "passing", "cut", "unreachable", "refused"]
    reason: str
    status: int | None = None
    after: float = 0.0
    """Seconds that the server wants until the next attempt."""


Answer: TypeAlias = tuple[bytes, dict[str, Any]]
"""A reply as it came, and what it says of its `usage`."""


class Sender:
    """Sends requests to the servers of a pool."""

    def __init__(
        self,
        name: str,
        attempts: int,
        deadline: float,
        session: aiohttp.ClientSession,
        pool: Pool,
    ) -> None:
        self._name, self._attempts, self._deadline = name, attempts, deadline
        self._session, self._pool = session, pool
        self._loop = asyncio.get_running_loop()
        self._last_answer = float("-inf")
        self._wrong_in_a_row = 0
        self._draw = random.SystemRandom().random  # when a request is sent changes no result

    async def send(
        self, route: str, body: bytes, allowed: Callable[[], None], failed: Callable[[], None]
    ) -> Answer | Failed:
        """The answer, or why there is none.

        Args:
            route: What is added to a base address.
            body: What is posted.
            allowed: Raises where nothing may be sent any more.
            failed: Called for each attempt that brought no answer.

        Raises:
            BackEndError: The servers are wrong, or silent for too long.
        """
        began, server = self._loop.time(), None
        failures = overloads = 0
        while True:
            server = await self._pool.acquire(server)
            try:
                allowed()
                sent = self._loop.time()
                found = await self._attempt(server, route, body)
            finally:
                self._pool.release(server)
            if not isinstance(found, Trouble):
                self._note_answer(server)
                return found
            failed()
            if found.kind == "refused":
                return self._refused(server, found)
            if found.kind == "overloaded":
                overloads += 1
                self._slow_down(server, found, sent)
            elif found.kind != "unreachable":
                failures += 1
            self._note_trouble(server, found)
            enough = failures >= self._attempts or overloads >= OVERLOADS * self._attempts
            if enough and self._last_answer > began:
                return Failed(found.reason, found.status)
            await self._pause(found, max(failures, overloads))

    def check_replies(self, replies: Iterable[object]) -> None:
        """Look at all replies to one batch of requests.

        Raises:
            BackEndError: Every one was refused, and no server ever answered as it should.
        """
        failed = [reply for reply in replies if isinstance(reply, Failed)]
        refused = [one for one in failed if one.status in WRONG]
        if refused and len(refused) == len(failed) and self._last_answer == float("-inf"):
            self._give_up(refused[0].reason)

    async def _pause(self, found: Trouble, failures: int) -> None:
        if found.kind != "unreachable":  # else there is another server, or a place to wait for one
            await asyncio.sleep(wait(failures, self._draw(), found.after))

    def _note_answer(self, server: Server) -> None:
        self._last_answer = self._loop.time()
        self._wrong_in_a_row = 0
        self._pool.answered(server)

    def _note_trouble(self, server: Server, found: Trouble) -> None:
        self._pool.silence(f"{server.url}: {found.reason}")
        is_gone = found.kind == "unreachable" or (found.kind == "cut" and self._pool.prepares)
        if is_gone:
            self._pool.set_aside(server)

    def _slow_down(self, server: Server, found: Trouble, sent: float) -> None:
        if server.limit.refused(sent, self._loop.time()) and found.after:
            self._pool.hold(server, found.after)

    def _refused(self, server: Server, found: Trouble) -> Failed:
        if found.status in WRONG or 300 <= (found.status or 0) < 400:
            self._wrong_in_a_row += 1
            at_once = found.status != 403 and not server.has_answered
            if at_once or self._wrong_in_a_row >= WRONG_IN_A_ROW:
                self._give_up(f"{server.url}: {found.reason}")
        else:
            self._pool.forget_silence()
        return Failed(found.reason, found.status)

    def _give_up(self, reason: str) -> None:
        raise BackEndError(
            f"{self._name}: the server refuses every request ({reason}); correct the address, the "
            "name of the model or the key in the recipe, and run the same command again"
        )

    async def _attempt(self, server: Server, route: str, body: bytes) -> Answer | Trouble:
        try:
            async with self._session.post(
                server.url + route, data=body, allow_redirects=False
            ) as response:
                raw = await response.read()
        except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as error:
            raise BackEndError(
                f"{self._name}: {server.url} cannot be asked ({error}); correct the address"
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Trouble("unreachable", f"it cannot be reached ({error})")
        except TimeoutError:
            return Trouble("passing", f"no answer within {self._deadline:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Trouble("cut", f"the connection was cut ({error or type(error).__name__})")
        if response.status != 200:
            return _trouble(response.status, response.headers.get("Retry-After"), raw)
        try:
            read = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return Trouble("passing", f"its answer is no JSON ({error})", 200)
        if not isinstance(read, dict):
            return Trouble("passing", f"its answer is no JSON object: {_words(raw)}", 200)
        usage = read.get("usage")
        return raw, usage if isinstance(usage, dict) else {}


def _trouble(status: int, after: str | None, raw: bytes) -> Trouble:
    reason = f"HTTP {status}: {_words(raw)}"
    if status in OVERLOADED:
        return Trouble("overloaded", reason, status, retry_after(after, datetime.now(UTC)))
    if status in PASSING or status >= 500:
        return Trouble("passing", reason, status, retry_after(after, datetime.now(UTC)))
    return Trouble("refused", reason, status)


def _words(raw: bytes) -> str:
    """What a server says in a reply that is no answer."""
    text = raw.decode(errors="replace")
    try:
        read = orjson.loads(raw)
    except orjson.JSONDecodeError:
        read = None
    if isinstance(read, dict):
        error = read.get("error", read.get("detail", read.get("message", text)))
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    return " ".join(text.split())[:WORDS] or "(no words)"
