"""One request, until it is answered or given up: which failures are tried again, and when.

=====================================  ===========================================================
what comes back                        what becomes of it
=====================================  ===========================================================
429, 503                               sent again, after Retry-After; many of them shrink the limit
408, 409, 425, other 5xx, no answer,   sent again, up to `attempts` times while others are answered
cut, too late                          or the server answers a knock
cannot be reached                      the server is set aside; sent to another
401, 403, 404, a redirect              `Failed`; BackEndError where all requests are met so
402                                    `Unpaid`: nothing more is sent
other 4xx                              `Failed`, with the server's words
=====================================  ===========================================================
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import aiohttp
import orjson

from eva.errors import BackEndError
from eva.serving.limits import retry_after, wait
from eva.serving.pool import WRONG_ADDRESS, Pool, Server, wrong_address
from eva.serving.words import words

OVERLOADED = (429, 503)
EMPTY = 402
"""What a server says whose bill is not paid."""
PASSING = (408, 409, 425)
"""With all other 5xx: failures of the moment."""
ALWAYS_WRONG = (401, 404)
"""What a wrong key, address or model name brings."""
WRONG = (*ALWAYS_WRONG, 403)
"""A single 403 may be about the request."""
WRONG_IN_A_ROW = 8
"""So many failed requests, and no answer between them, are no matter of single requests."""
BEARABLE = 10
"""Unless there are this many times more answers that were kept by an earlier attempt."""
OVERLOADS = 10
"""Times `attempts`: how often a request may be met by an overload while others are answered."""


class Unpaid(Exception):
    """The budget is spent, or the account is empty; a sentence for the person."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    route: str
    """What is added to the base address, e.g. "/chat/completions"."""
    body: bytes
    """The JSON that is sent."""
    key: bytes
    """What its answer is kept by."""
    fault: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    """Why a reply is no answer, though it came with HTTP 200; None where it is one."""


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


@dataclass(slots=True)
class _Tries:
    """What one request met so far."""

    began: float
    """When it was first sent, on the clock of the loop."""
    failures: int = 0
    overloads: int = 0


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
        self._lost_in_a_row = 0
        self._kept = 0
        self._draw = random.SystemRandom().random  # when a request is sent changes no result

    async def send(
        self, one: Call, allowed: Callable[[], None], failed: Callable[[], None]
    ) -> Answer | Failed:
        """The answer, or why there is none.

        Args:
            one: The request.
            allowed: Raises where nothing may be sent any more.
            failed: Called for each attempt that brought no answer.

        Raises:
            BackEndError: The servers are wrong, or silent for too long.
            Unpaid: A server wants to be paid first.
        """
        tries, server = _Tries(self._loop.time()), None
        while True:
            server = await self._pool.acquire(server)
            try:
                allowed()
                sent = self._loop.time()
                found = await self._attempt(server, one)
            finally:
                self._pool.release(server)
            if not isinstance(found, Trouble):
                self._note_answer(server)
                return found
            failed()
            if found.kind == "refused":
                return self._refused(server, found)
            self._note_trouble(server, found, tries, sent)
            if await self._is_hopeless(server, found, tries):
                return Failed(found.reason, found.status)
            await self._pause(found, max(tries.failures, tries.overloads))

    def note_kept(self) -> None:
        """An answer of an earlier attempt was found: the servers do answer such requests."""
        self._kept += 1

    def check_replies(self, replies: Iterable[object]) -> None:
        """Look at all replies to one batch of requests.

        Raises:
            BackEndError: Every one was refused, and no server ever answered as it should, in
                earlier attempts neither.
        """
        failed = [reply for reply in replies if isinstance(reply, Failed)]
        refused = [one for one in failed if one.status in WRONG]
        never = self._last_answer == float("-inf") and not self._kept
        if refused and len(refused) == len(failed) and never:
            self._give_up(refused[0].reason)

    async def _pause(self, found: Trouble, failures: int) -> None:
        if found.kind != "unreachable":  # else there is another server, or a place to wait for one
            seconds = wait(failures, self._draw(), found.after)
            await asyncio.sleep(min(seconds, self._pool.patience_left))

    def _note_answer(self, server: Server) -> None:
        self._last_answer = self._loop.time()
        self._wrong_in_a_row = self._lost_in_a_row = 0
        self._pool.answered(server)

    def _note_trouble(self, server: Server, found: Trouble, tries: _Tries, sent: float) -> None:
        if found.kind == "overloaded":
            tries.overloads += 1
            self._slow_down(server, found, sent)
        elif found.kind != "unreachable":
            tries.failures += 1
        is_gone = found.kind == "unreachable" or (found.kind == "cut" and self._pool.prepares)
        if is_gone:
            self._pool.set_aside(server)

    async def _is_hopeless(self, server: Server, found: Trouble, tries: _Tries) -> bool:
        """Whether a request is given up: it fails, and the servers are there.

        That others are answered shows it. Where no other is left to be answered, as after a kill, a
        knock does: of two servers that answer it, one may be broken for all requests, so no more
        are given up in a row than are bearable.

        Raises:
            BackEndError: No server answered for too long.
        """
        failed = tries.failures >= self._attempts
        enough = failed or tries.overloads >= OVERLOADS * self._attempts
        if enough and self._last_answer > tries.began:
            return True
        may_be_its_own = found.kind in ("passing", "cut") and self._lost_in_a_row < self._bearable
        if (
            may_be_its_own
            and (failed or self._pool.patience_left == 0.0)
            and await self._pool.is_there(server)
            and self._lost_in_a_row < self._bearable  # others may have been given up meanwhile
        ):
            self._pool.forget_silence()
            self._lost_in_a_row += failed
            return failed
        self._pool.silence(f"{server.url}: {found.reason}")
        return False

    @property
    def _bearable(self) -> int:
        """Requests that may fail in a row."""
        return max(WRONG_IN_A_ROW, self._kept // BEARABLE)

    def _slow_down(self, server: Server, found: Trouble, sent: float) -> None:
        if server.limit.refused(sent, self._loop.time()) and found.after:
            self._pool.hold(server, min(found.after, self._pool.patience_left))

    def _refused(self, server: Server, found: Trouble) -> Failed:
        if found.status == EMPTY:
            raise Unpaid(
                f"{self._name}: the account at {server.url} is empty ({found.reason}); fill it and "
                "run the same command again: what was answered is kept"
            )
        if found.status in WRONG or 300 <= (found.status or 0) < 400:
            self._wrong_in_a_row += 1
            at_once = found.status != 403 and not server.has_answered
            if at_once or self._wrong_in_a_row >= self._bearable:
                self._give_up(f"{server.url}: {found.reason}")
        else:
            self._pool.forget_silence()
        return Failed(found.reason, found.status)

    def _give_up(self, reason: str) -> None:
        raise BackEndError(
            f"{self._name}: the server refuses every request ({reason}); correct the address, the "
            "name of the model or the key in the recipe, and run the same command again"
        )

    async def _attempt(self, server: Server, one: Call) -> Answer | Trouble:
        try:
            async with self._session.post(
                server.url + one.route, data=one.body, allow_redirects=False
            ) as response:
                raw = await response.read()
        except WRONG_ADDRESS as error:
            raise wrong_address(server, error) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Trouble("unreachable", f"it cannot be reached ({error})")
        except TimeoutError:
            return Trouble("passing", f"no answer within {self._deadline:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Trouble("cut", f"the connection was cut ({error or type(error).__name__})")
        if response.status != 200:
            reason = f"HTTP {response.status}: {words(raw, self._session.headers)}"
            return _trouble(response.status, response.headers.get("Retry-After"), reason)
        return self._read(raw, one)

    def _read(self, raw: bytes, one: Call) -> Answer | Trouble:
        """The answer in a reply with HTTP 200."""
        try:
            read = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return Trouble("passing", f"its answer is no JSON ({error})", 200)
        fault = one.fault(read) if isinstance(read, dict) else "its answer is no JSON object"
        if fault is not None:
            return Trouble("passing", f"{fault}: {words(raw, self._session.headers)}", 200)
        usage = read.get("usage")
        return raw, usage if isinstance(usage, dict) else {}


def _trouble(status: int, after: str | None, reason: str) -> Trouble:
    if status in OVERLOADED:
        return Trouble("overloaded", reason, status, retry_after(after, datetime.now(UTC)))
    if status in PASSING or status >= 500:
        return Trouble("passing", reason, status, retry_after(after, datetime.now(UTC)))
    return Trouble("refused", reason, status)
