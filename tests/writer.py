"""A server on loopback that writes prompts: OpenAI's chat completions by a rule, for tests.

What it writes depends on the request alone, so it answers like a model that is seeded.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from tests.tiny import WORDS

REFUSAL = "I am sorry, but I cannot rewrite that."


def rewritten(body: dict) -> str:
    """Three words between eva's markers; one in eight answers is a refusal without markers."""
    return REFUSAL if drawn(body)[0] % 8 == 0 else sound(body)


def sound(body: dict) -> str:
    """Three words between eva's markers."""
    words = " ".join(WORDS[number % len(WORDS)] for number in drawn(body)[1:4])
    return f"<new_prompt>{words}</new_prompt>"


def drawn(body: dict) -> bytes:
    """Numbers of 0 to 255 that depend on a request alone."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()


@contextmanager
def served(write: Callable[[dict], str] = rewritten) -> Iterator[tuple[str, list[dict]]]:
    """The base address of a server, and the requests that it answered."""
    requests: list[dict] = []

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        requests.append(body)
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i in range(body.get("n", 1))
            for text in [write(body | {"choice": i})]
        ]
        usage = {"prompt_tokens": 100, "completion_tokens": 10 * len(choices)}
        return web.json_response({"choices": choices, "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "writer"}]})

    loop, ready = asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    async def begin() -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        return runner

    def run() -> None:
        runner = loop.run_until_complete(begin())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{ports[0]}/v1", requests
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
