"""Requests to JSON services over HTTP, many at once; each answer is paid once.

A `Client` has a loop in a thread of its own, so that it can be used from anywhere, a notebook's
running loop included. Workers take calls from one iterator; the order of the replies is that of the
calls. What concerns one request is a `Failed` with a reason; what concerns all of them (no server,
a wrong key, an empty purse) is a `BackEndError`, and the same command goes on from there.
"""

import asyncio
import threading
import urllib.request
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson
from pydantic import JsonValue

from eva.errors import BackEndError
from eva.parts.policies import Price
from eva.serving.answers import DELAY, Account, Answers, key_of
from eva.serving.crew import Crew, InRows
from eva.serving.limits import Limit
from eva.serving.pool import Pool, Prepare, Revive, Server
from eva.serving.sending import Call as Call
from eva.serving.sending import Failed, Sender, Unpaid

IDLE = 4.0
"""Seconds after which an idle connection is closed: sooner than common servers do it (5), so that
no request runs into a closing one."""
CONNECT = 10.0
"""Seconds within which a connection must stand."""
USAGE = ("prompt_tokens", "completion_tokens")
"""What a server says of its work."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a request."""

    raw: bytes
    """As it came, a JSON object. Kept so: many small objects would cost a tenth of the speed."""

    @property
    def body(self) -> dict[str, Any]:
        """The object, read anew each time."""
        read: dict[str, Any] = orjson.loads(self.raw)
        return read


Reply: TypeAlias = Replied | Failed
Then: TypeAlias = Callable[[int, Reply], Call | None]
"""(number of a request, its reply) -> what is sent next in its place, or None at the end."""


@dataclass(frozen=True)
class Settings:
    """Who is asked, and how."""

    urls: tuple[str, ...]
    """Base addresses."""
    name: str
    """The account that pays; also what errors call it."""
    cache: Path | None
    """The folder of paid answers; None keeps none."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of each request, such as Authorization."""
    concurrency: int = 256
    """Upper bound on requests in flight, to each server."""
    deadline: float = 600.0
    """Seconds that one attempt may take."""
    attempts: int = 8
    """How often a request is sent that fails while others do not."""
    patience: float = 3600.0
    """Seconds without any answer after which all is given up."""
    price: Price | None = None
    """What tokens cost."""
    budget: float | None = None
    """Most that is spent on this account."""


def call(
    route: str,
    body: Mapping[str, JsonValue],
    weights: str,
    *,
    unsent: Mapping[str, JsonValue] = MappingProxyType({}),
    fault: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
    **extra: JsonValue,
) -> Call:
    """A request that sends `body` and `extra`; its answer is kept by `weights`, `body`, `unsent`.

    Args:
        route: What is added to the base address; "" for nothing.
        body: What decides the answer.
        weights: What answers: the id of a checkpoint, or the name of a service.
        unsent: What tells this request from an equal one, and is not sent.
        fault: Why a reply with HTTP 200 is no answer, or None; one that is none is not kept.
        extra: What is sent too, but does not decide the answer: the name of the model at this
            server, which of its tokens it shows.
    """
    decides = orjson.dumps({**body, **unsent}, option=orjson.OPT_SORT_KEYS)
    return Call(route, orjson.dumps({**body, **extra}), key_of(weights, route, decides), fault)


class Client:
    """Asks servers; open until it is closed.

    Raises:
        BackEndError: The folder of paid answers cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        prepare: Prepare | None = None,
        revive: Revive | None = None,
    ) -> None:
        self._settings = settings
        self._prepare, self._revive = prepare, revive
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="eva-http")
        self._thread.start()
        self._asking: set[asyncio.Task[Any]] = set()
        self._flushing: asyncio.TimerHandle | None = None
        self._asked: dict[bytes, asyncio.Future[Replied | Failed]] = {}
        try:
            self._run(self._open())
        except BaseException:
            self._end_loop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def account(self) -> Account:
        """What was asked of this account, over all attempts of the run."""
        return self._answers.account

    @property
    def limits(self) -> dict[str, int]:
        """The number of requests that each server may have in flight now, by base address."""
        return self._pool.limits

    def ask(
        self, calls: Iterable[Call], then: Then | None = None, most: int | None = None
    ) -> list[Reply]:
        """Send requests, and wait for all; the last reply to each, in the order of the calls.

        Calls are taken, and `then` is asked, in the client's thread while others are in flight:
        neither may ask this client.

        Args:
            calls: What is sent first.
            then: What is sent after a reply; nothing without it.
            most: Upper bound on the number of calls, where they do not say it themselves.

        Raises:
            BackEndError: Nothing can be asked any more, or the budget is spent; answers that were
                in flight then are kept.
        """
        return self._run(self._ask(calls, then, len(calls) if isinstance(calls, Sized) else most))

    def close(self) -> None:
        """Keep what was paid, and end."""
        if not self._loop.is_closed():
            try:
                self._run(self._close())
            finally:
                self._end_loop()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt, most of all; nothing to do where the work itself failed
            raise

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        given = self._settings
        self._answers = Answers(given.cache, given.name)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE),
            headers={"Content-Type": "application/json", **given.headers},
            timeout=aiohttp.ClientTimeout(total=given.deadline, sock_connect=CONNECT),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=_needs_proxy(given.urls),
        )
        is_ready = self._prepare is None
        self._pool = Pool(
            [Server(url, Limit(given.concurrency), is_ready=is_ready) for url in given.urls],
            self._session,
            patience=given.patience,
            prepare=self._prepare,
            revive=self._revive,
        )
        self._sender = Sender(given.name, given.attempts, given.deadline, self._session, self._pool)

    async def _close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        try:
            await self._pool.close()
            await self._session.close()
        finally:
            self._answers.close()

    async def _ask(self, calls: Iterable[Call], then: Then | None, most: int | None) -> list[Reply]:
        replies: dict[int, Reply] = {}
        waiting = enumerate(calls)
        spent: list[Unpaid] = []
        in_rows = InRows(then) if then else None
        following: deque[tuple[int, Call]] = deque()

        def failed() -> None:
            self._count_failure()
            crew.relieve()

        def taken() -> tuple[int, Call] | None:
            # What follows waits for all that came before it, so that all end at about one time.
            one = next(waiting, None)
            return following.popleft() if one is None and following else one

        async def work() -> None:
            while place := taken():
                i, one = place
                try:
                    replies[i] = await self._reply(one, failed)
                except Unpaid as error:
                    spent.append(error)
                if spent:
                    return
                if in_rows and (next_one := await in_rows.made(i, replies[i])):
                    following.append((i, next_one))

        places = self._settings.concurrency * len(self._settings.urls)
        crew = Crew(work, places if most is None else min(places, most))
        with self._noted():
            await crew.run(self._pool.broken)
        if spent:
            raise BackEndError(str(spent[0]))
        self._sender.check_replies(replies.values())
        return [replies[i] for i in range(len(replies))]

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note that a batch of requests runs; what was paid is written when it ends, however."""
        task = asyncio.current_task()
        assert task is not None
        if not self._asking:
            self._pool.forget_silence()
        self._asking.add(task)
        try:
            yield
        finally:
            self._asking.discard(task)
            self._answers.flush()

    async def _reply(self, one: Call, failed: Callable[[], None]) -> Reply:
        while (same := self._asked.get(one.key)) is not None:
            await asyncio.wait([same])
            if not same.cancelled():
                return same.result()
        kept = self._answers.get(one.key)
        if kept is not None:
            self._sender.note_kept()
            self._flush_soon()
            return Replied(kept)
        self._asked[one.key] = future = self._loop.create_future()
        try:
            reply = await self._paid(one, failed)
            future.set_result(reply)
        finally:
            future.cancel()  # where nothing came; nobody is told a lie
            del self._asked[one.key]
        return reply

    async def _paid(self, one: Call, failed: Callable[[], None]) -> Reply:
        answer = await self._sender.send(one, self._check_budget, failed)
        if isinstance(answer, Failed):
            return answer
        raw, usage = answer
        self._answers.put(one.key, raw, self._cost(usage))
        self._flush_soon()
        self._check_usage(usage)
        return Replied(raw)

    def _count_failure(self) -> None:
        self._answers.count(Account(failed=1))
        self._flush_soon()

    def _cost(self, usage: Mapping[str, Any]) -> Account:
        read, written = (_count(usage.get(name)) or 0 for name in USAGE)
        price = self._settings.price
        money = (read * price.input + written * price.output) / 1e6 if price else 0.0
        return Account(1, 0, 0, read, written, money)

    def _check_usage(self, usage: Mapping[str, Any]) -> None:
        if self._settings.budget is not None and None in [_count(usage.get(u)) for u in USAGE]:
            raise Unpaid(
                f"{self._settings.name} has a budget, and its servers do not say how many tokens "
                "they used; remove budget, or take a server whose replies have a key usage"
            )

    def _check_budget(self) -> None:
        budget = self._settings.budget
        if budget is not None and self._answers.money >= budget:
            raise Unpaid(
                f"{self._settings.name}: {self._answers.money:.6g} is spent, and its budget is "
                f"{budget:.6g}; raise budget in the recipe and run the same command again: what "
                "was answered is kept"
            )

    def _flush_soon(self) -> None:
        if self._flushing is None and self._answers.is_dirty:
            self._flushing = self._loop.call_later(DELAY, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        try:
            self._answers.flush()
        except BackEndError as error:
            self._pool.fail(error)


def _count(value: object) -> int | None:
    """Tokens, as a server counts them; None where it does not."""
    return value if isinstance(value, int) else None


def _needs_proxy(urls: Iterable[str]) -> bool:
    """Whether proxies are set, and any server is not on this machine: to ask costs time."""
    hosts = {urlsplit(url).hostname for url in urls}
    return bool(urllib.request.getproxies()) and not hosts <= {"localhost", "127.0.0.1", "::1"}
