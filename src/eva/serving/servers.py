"""Servers that eva starts, keeps alive while they are asked, and ends.

Each is a program in a process group of its own that does not outlive eva. One that dies while it is
asked is started again on the same port, a few times.
"""

import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from eva.errors import BackEndError
from eva.parts.policies import Serve
from eva.serving.programs import ended, guarded, program, signalled, tail

GRACE = 10
"""Seconds between asking a server to end and ending it."""
RESTARTS = 3
"""How often one server is started again."""
PORTS = 5
"""How many ports are tried, where one is taken between its choice and the start."""
READY_ROUTES = ("health", "v1/models")
"""A server is ready when one of them answers 200."""
TAKEN = ("address already in use", "errno 98", "errno 48", "eaddrinuse")
"""What a server says whose port is taken."""
LOOK = 0.1
"""Seconds between two looks at a server that starts."""


@contextmanager
def started(serve: Serve, model: str, logs: Path) -> Iterator["Started"]:
    """Start servers, wait until all of them answer, and end them when the context is left.

    Args:
        serve: The command, how many, their environment.
        model: The folder or hub id of the weights.
        logs: The folder for ``server_0.log``, ...; what is there is added to.

    Raises:
        BackEndError: One cannot be started, dies, or is not ready in time.
        RecipeError: There is no such program.
    """
    logs.mkdir(parents=True, exist_ok=True)
    program(serve.command[0], "policy.serve.command", near_python=True)
    running = [_Running(serve, model, i, logs / f"server_{i}.log") for i in range(serve.count)]
    try:
        for server in running:
            server.start()
        for server in running:
            server.wait_ready()
        yield Started(running)
    finally:
        _close_all(running)


class Started:
    """Running servers.

    Attributes:
        urls: Their base addresses.
    """

    def __init__(self, running: "Sequence[_Running]") -> None:
        self._running = {server.url: server for server in running}
        self.urls = tuple(self._running)

    def revive(self, url: str) -> None:
        """Start the server at an address again if it has died; wait until it answers.

        Raises:
            BackEndError: It died too often, or does not come back.
        """
        self._running[url].revive()


class _Running:
    """One server: its program, its port, its log."""

    def __init__(self, serve: Serve, model: str, index: int, log: Path) -> None:
        self._serve, self._model, self._index = serve, model, index
        self._log = log
        self._begin = 0
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._command: list[str] = []
        self._restarts = 0
        self._port = 0
        self._ports = 0

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Start the program, on a port that is free now."""
        self._port = free_port()
        self._ports += 1
        self._run()

    def wait_ready(self) -> None:
        """Wait until the server answers; with another port if its own was taken."""
        until = time.monotonic() + self._serve.ready
        while True:
            is_ready = _answers(self._port)
            code = self._code()  # after the answer: it may come from another program on this port
            if code is not None and self._port_was_taken() and self._ports < PORTS:
                self.close()
                self.start()
            elif code is not None:
                raise self._error(ended(code))
            elif is_ready:
                return
            elif time.monotonic() > until:
                raise self._error(f"did not answer within {self._serve.ready:g} s")
            time.sleep(LOOK)

    def revive(self) -> None:
        """Start the program again if it has died."""
        code = self._code()
        if code is None:
            return
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise self._error(f"{ended(code)}, for the {self._restarts}th time")
        self.close()
        self._run()
        self._ports = PORTS  # its address is known to others now
        self.wait_ready()

    def ask_to_end(self) -> None:
        """Begin to end the program and what it started."""
        if self._process is not None:
            signalled(self._process.pid, signal.SIGTERM)

    def close(self) -> None:
        """End the program."""
        self._stack.close()

    def _run(self) -> None:
        named = program(self._serve.command[0], "policy.serve.command", near_python=True)
        self._command = [named, *(self._filled(word) for word in self._serve.command[1:])]
        env = {name: self._filled(value) for name, value in self._serve.env.items()}
        file = self._stack.enter_context(self._log.open("ab"))
        file.write(f"$ {shlex.join(self._command)}\n".encode())
        file.flush()
        self._begin = file.tell()
        full = {"PYTHONUNBUFFERED": "1", **os.environ, **env}
        who = "the server (policy.serve.command)"
        self._process = self._stack.enter_context(
            guarded(self._command, file, full, grace=GRACE, who=who)
        )

    def _code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def _filled(self, word: str) -> str:
        """A word of the command with its placeholders filled in; other braces stay."""
        known = {"{model}": self._model, "{port}": str(self._port), "{index}": str(self._index)}
        for placeholder, value in known.items():
            word = word.replace(placeholder, value)
        return word

    def _port_was_taken(self) -> bool:
        said = tail(self._log, self._begin).lower()
        return any(words in said for words in TAKEN)

    def _error(self, what: str) -> BackEndError:
        return BackEndError(
            f"server {self._index} {what}: {shlex.join(self._command)}; mend policy.serve and run "
            f"the same command again; the last lines of its log, {self._log}:\n"
            f"{tail(self._log, self._begin)}"
        )


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    for route in READY_ROUTES:
        try:
            with _OPENER.open(f"http://127.0.0.1:{port}/{route}", timeout=5.0) as reply:
                if reply.status == 200:
                    return True
        except (urllib.error.URLError, OSError, ValueError):
            continue
    return False


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past any proxy: the servers are on this machine."""


def _close_all(running: "Sequence[_Running]") -> None:
    for server in running:
        server.ask_to_end()  # all at once, then wait for each
    with ExitStack() as stack:  # each is ended, even where another one makes trouble
        for server in running:
            stack.callback(server.close)
