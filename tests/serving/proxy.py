"""Servers with faults, on real sockets: a proxy that spoils replies, and an upstream to spoil.

::

    with FaultyProxy(target_url, faults=sometimes(Status(500), 0.1)) as proxy:
        ...  # ask proxy.url
    assert max(proxy.paid.values()) == 1  # nothing was paid twice

Both are named by base addresses without a route; they pass any route on.
"""

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import orjson
from aiohttp import web

from eva import seeds


@dataclass(frozen=True)
class Status:
    """Answers with a status instead of asking upstream: 429, 500, 401, ..."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    words: str = '{"error": {"message": "a fault"}}'


@dataclass(frozen=True)
class Stall:
    """Says nothing for so many seconds, then goes on as usual."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """Asks upstream, sends half of its reply, and cuts the connection."""


@dataclass(frozen=True)
class Refuse:
    """Cuts the connection without asking upstream."""


@dataclass(frozen=True)
class Garbage:
    """Asks upstream, and sends half of its reply as if it were the whole."""


Fault = Status | Stall | Cut | Refuse | Garbage
Faults = Callable[[int], Fault | None]
"""The fault of request number 0, 1, ..., or None."""


def sometimes(fault: Fault, share: float, seed: int = 1) -> Faults:
    """A fault in a share of all requests, drawn at random."""
    return lambda i: fault if seeds.rng(seed, "fault", i).random() < share else None


def first(count: int, fault: Fault) -> Faults:
    """A fault in the first requests."""
    return lambda i: fault if i < count else None


def mixed(faults: Sequence[Fault], share: float, seed: int = 1) -> Faults:
    """One of several faults in a share of all requests."""

    def drawn(i: int) -> Fault | None:
        rng = seeds.rng(seed, "fault", i)
        return faults[int(rng.integers(len(faults)))] if rng.random() < share else None

    return drawn


def digest(body: bytes) -> str:
    """What a request is counted by: what decides its answer, not the order of its keys."""
    read = orjson.loads(body)
    read.pop("return_token_ids", None)
    return hashlib.blake2b(
        orjson.dumps(read, option=orjson.OPT_SORT_KEYS), digest_size=10
    ).hexdigest()


class Threaded:
    """A web application that listens in a thread of its own; `die` and `come_back` at will."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._handler = handler
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *error: object) -> None:
        self.die()
        self.run(self.shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def shut(self) -> None:
        """What is to be closed at the end."""

    def come_back(self) -> None:
        self.run(self._start())

    def die(self) -> None:
        """Cut all connections and listen no more."""
        if self._runner is not None:
            self.run(self._stop(self._runner))

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{route:.*}", self._handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self, runner: web.AppRunner) -> None:
        self._runner = None
        assert runner.server is not None
        for connection in list(runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()


class FaultyProxy(Threaded):
    """Stands before a server, passes requests on, and spoils some of the replies.

    Attributes:
        received: How often each request came, by `digest` of its body.
        paid: How often each request was answered with 200 by the server behind.
        busiest: Most requests that were here at once.
        faults: May be changed at any time.
    """

    def __init__(self, target_url: str, faults: Faults = lambda _: None) -> None:
        super().__init__(self._pass_on)
        self._target = target_url.rstrip("/")
        self.faults = faults
        self.received: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.busiest = 0
        self.seen = 0
        self._here = 0
        self._session: aiohttp.ClientSession | None = None

    async def shut(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        self._here += 1
        self.busiest = max(self.busiest, self._here)
        try:
            return await self._replied(request)
        finally:
            self._here -= 1

    async def _replied(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "GET":
            return await self._upstream(request, body)
        fault = self.faults(self.seen)
        self.seen += 1
        self.received[digest(body)] += 1
        if isinstance(fault, Status):
            return web.Response(status=fault.status, headers=fault.headers, text=fault.words)
        if isinstance(fault, Stall):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Refuse):
            return self._cut(request)
        reply = await self._upstream(request, body)
        if reply.status == 200:
            self.paid[digest(body)] += 1
        half = bytes(reply.body)[: len(reply.body) // 2]
        if isinstance(fault, Garbage):
            return web.Response(body=half, content_type="application/json")
        if isinstance(fault, Cut):
            spoilt = web.StreamResponse(headers={"Content-Length": str(len(reply.body))})
            await spoilt.prepare(request)
            await spoilt.write(half)
            return self._cut(request)
        return reply

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _upstream(self, request: web.Request, body: bytes) -> web.Response:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with self._session.request(
            request.method, self._target + request.path_qs, data=body
        ) as reply:
            return web.Response(
                status=reply.status, body=await reply.read(), content_type=reply.content_type
            )


def completion(body: dict[str, object]) -> dict[str, object]:
    """What `Upstream` answers: as many choices as wanted, each with the prompt turned round."""
    said = body["messages"][-1]["content"]
    n = body.get("n", 1)
    return {
        "choices": [
            {
                "index": i,
                "message": {"role": "assistant", "content": f"{said[::-1]} {body.get('seed')} {i}"},
                "finish_reason": "stop",
                "token_ids": [len(said), i, 2],
            }
            for i in range(n)
        ],
        "usage": {"prompt_tokens": len(said), "completion_tokens": 3 * n},
    }


class Upstream(Threaded):
    """A server that answers chats at once, or after `delay` seconds.

    Attributes:
        bodies: The requests, in order.
        heads: Their headers.
    """

    def __init__(
        self,
        reply: Callable[[dict[str, object]], dict[str, object] | Status] = completion,
        delay: float = 0.0,
    ) -> None:
        super().__init__(self._answer)
        self._reply, self._delay = reply, delay
        self.bodies: list[dict[str, object]] = []
        self.routes: list[str] = []
        self.heads: list[dict[str, str]] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if request.method == "GET":
            return web.json_response({"data": []})
        body = orjson.loads(raw)
        self.bodies.append(body)
        self.routes.append(request.path)
        self.heads.append(dict(request.headers))
        if self._delay:
            await asyncio.sleep(self._delay)
        reply = self._reply(body)
        if isinstance(reply, Status):
            return web.Response(status=reply.status, headers=reply.headers, text=reply.words)
        return web.Response(body=orjson.dumps(reply), content_type="application/json")
