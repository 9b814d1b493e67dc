"""eva's own small server: OpenAI's chat completions around the sampler of `eva.backends.hf`.

For laptops and tests: it has no authentication, and a batch ends before the next one begins.
"""

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eva.errors import BackEndError, EvaError
from eva.parts.policies import HfPolicy
from eva.records import Message, Response, Sampling
from eva.serving.batching import Answered, Asked, Batcher

LAST = 2.0
"""Seconds that requests in flight have to end when the server is asked to."""
LARGEST = 2**26
"""Bytes of the largest request."""
LONGEST = 512
"""New tokens of a request that names no limit."""


class Request(BaseModel):
    """The body of a request to /v1/chat/completions; other keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages: list[dict[str, str]] = Field(min_length=1)
    model: str | None = None
    n: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    return_token_ids: bool = False
    logprobs: bool = False
    stream: Literal[False] = False
    stop: None = None

    def asked(self, room: Callable[[Sequence[Message]], int | None]) -> Asked:
        """What the model is to do; without a limit it writes at most what the context has room for.

        Args:
            room: New tokens that the context holds beside a chat; None if it has no bound.
        """
        messages = tuple(Message.model_validate(turn) for turn in self.messages)
        longest = self.max_tokens or min(LONGEST, room(messages) or LONGEST)
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=longest)
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return Asked(messages, self.n or 1, sampling, seed)


class Reload(BaseModel):
    """The body of a request to /reload."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    """A folder, or what was served at first."""


class Service:
    """The routes, around one model that keeps its name when its weights change."""

    def __init__(self, name: str, model: str, batcher: Batcher) -> None:
        self._name, self._model, self._batcher = name, model, batcher
        self._numbers = iter(range(2**62))

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application(client_max_size=LARGEST, middlewares=[_explained])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.completions),
                web.get("/v1/models", self.models),
                web.get("/health", self.health),
                web.post("/reload", self.reload),
            ]
        )
        return app

    async def completions(self, request: web.Request) -> web.Response:
        """Answer a chat."""
        wanted = Request.model_validate(_json(await request.read()))
        if wanted.model not in (None, self._name):
            return _error(404, f"there is no model {wanted.model!r} here, but {self._name!r}")
        outcome = await self._batcher.answer(wanted.asked(self._batcher.room))
        if isinstance(outcome, str):
            return _error(400, outcome)
        return _reply(self._completion(wanted, outcome))

    async def models(self, request: web.Request) -> web.Response:
        """Say which model is served."""
        model = {"id": self._name, "object": "model", "owned_by": "eva"}
        return _reply({"object": "list", "data": [model]})

    async def health(self, request: web.Request) -> web.Response:
        """Say that it is there."""
        return _reply({"status": "ok"})

    async def reload(self, request: web.Request) -> web.Response:
        """Load other weights."""
        wanted = Reload.model_validate(_json(await request.read()))
        if wanted.model != self._model and not Path(wanted.model).is_dir():
            return _error(400, f"there is no folder {wanted.model!r}; nothing else is loaded here")
        await self._batcher.reload(wanted.model)
        return _reply({"model": wanted.model})

    def _completion(self, wanted: Request, answered: Answered) -> dict[str, Any]:
        written = sum(len(response.tokens or ()) for response in answered.responses)
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._name,
            "choices": [_choice(i, r, wanted) for i, r in enumerate(answered.responses)],
            "usage": {
                "prompt_tokens": answered.prompt,
                "completion_tokens": written,
                "total_tokens": answered.prompt + written,
            },
        }


def _choice(index: int, response: Response, wanted: Request) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": response.text},
        "finish_reason": response.finish,
    }
    if wanted.return_token_ids:
        choice["token_ids"] = response.tokens
    if wanted.logprobs:
        pairs = zip(response.tokens or (), response.logprobs or (), strict=True)
        entries = [{"token": f"token_id:{token}", "logprob": value} for token, value in pairs]
        choice["logprobs"] = {"content": entries}
    return choice


@asynccontextmanager
async def serving(config: HfPolicy, name: str, host: str, port: int) -> AsyncIterator[str]:
    """Serve a model until the context is left; yields its base address.

    Args:
        config: The model, its device, and the responses that are sampled side by side.
        name: What the model is called in requests.
        host: The address to listen on.
        port: The port; 0 takes a free one.

    Raises:
        BackEndError: There is no such model, or the address cannot be listened on.
    """
    batcher = Batcher(config)
    runner = web.AppRunner(
        Service(name, config.model, batcher).app(), access_log=None, shutdown_timeout=LAST
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise BackEndError(
                f"cannot listen on {host} port {port} ({error.strerror}); give another --port, or "
                "0 for a free one"
            ) from error
        got = runner.addresses[0][1]
        yield f"http://{host if ':' not in host else f'[{host}]'}:{got}/v1"
    finally:
        await runner.cleanup()
        await batcher.close()


async def serve(
    config: HfPolicy, name: str, address: tuple[str, int], ready: Callable[[str], None]
) -> None:
    """Serve a model until the program is asked to end; `ready` is told the base address."""
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    async with serving(config, name, *address) as url:
        ready(url)
        await end.wait()


@web.middleware
async def _explained(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn errors into one sentence."""
    try:
        return await handler(request)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"]))
        return _error(400, f"{place or 'the request'}: {found['msg']}, got {found['input']!r:.80}")
    except EvaError as error:
        return _error(500 if request.path != "/reload" else 400, str(error))


def _json(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise web.HTTPBadRequest(text=f"the request is no JSON: {error}") from error


def _reply(body: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    body = orjson.dumps({"error": {"message": message, "type": "invalid_request", "code": status}})
    return web.Response(status=status, body=body, content_type="application/json")
