"""A server of chat completions that answers anything after a fixed time, and counts.

    python bench/_evolve_server.py 0.05      # prints its port

Raw HTTP/1.1 on asyncio, so that it costs little beside what is measured. GET /begin forgets the
counts, GET /counts tells them.
"""

import asyncio
import json
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
PROMPT = (
    "Prompt#: <new_prompt>\nPlan number %d: explain how a family that lives by the sea could "
    "spend a rainy week without a car, within 300 euros, and name what you would leave out.\n"
    "</new_prompt>"
)
"""Every answer is another prompt, in the forms that eva and distilabel look for."""


class Counts:
    """What was asked since the last /begin."""

    def __init__(self) -> None:
        self.requests = self.now = self.peak = 0
        self.first = self.last = 0.0

    def text(self) -> bytes:
        """As JSON."""
        names = ("requests", "now", "peak", "first", "last")
        return json.dumps({name: getattr(self, name) for name in names}).encode()


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    counts = Counts()
    delay = 0.05

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._read = transport, b""

    def data_received(self, data: bytes) -> None:
        """Take a request as soon as it is whole."""
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (
                int(line[15:])
                for line in head.lower().split(b"\r\n")
                if line[:15] == b"content-length:"
            ),
            0,
        )
        if len(body) >= length:
            self._read = body[length:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        counts, loop = Connection.counts, asyncio.get_running_loop()
        if head.startswith(b"POST"):
            counts.first = counts.first or time.monotonic()
            counts.requests += 1
            counts.now += 1
            counts.peak = max(counts.peak, counts.now)
            loop.call_later(Connection.delay, self._write, completion(counts.requests))
            return
        if head.startswith(b"GET /begin"):
            Connection.counts = Counts()
        text = counts.text()
        self._transport.write(HEAD % (len(text), text))

    def _write(self, text: bytes) -> None:
        Connection.counts.now -= 1
        Connection.counts.last = time.monotonic()
        self._transport.write(HEAD % (len(text), text))


def completion(number: int) -> bytes:
    """An answer as OpenAI's chat completions have it."""
    message = {"role": "assistant", "content": PROMPT % number}
    body = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240},
    }
    return json.dumps(body).encode()


async def main(delay: float) -> None:
    """Serve until ended."""
    Connection.delay = delay
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
