"""The page of runs or of a study, served on the loopback address and drawn anew as they grow.

The server hands out the page, and the pages of single runs of a study, and nothing else: what is
asked for is looked up among them and never opened as a path. It listens on 127.0.0.1 alone and
answers to that name alone, so that a page from elsewhere which makes a browser ask it (DNS
rebinding) is refused. It writes no file.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from eva.errors import BackEndError, EvaError, RunDirError
from eva.report import page, studied
from eva.report.begun import PAGE, RUN_FILES, cells, has_page, is_study
from eva.report.sheet import Charts, sheet, warm

HOST = "127.0.0.1"
"""Where it listens; no other machine can reach it."""
REST = 4.0
"""How many times longer than a drawing took the next one waits: what is watched has the cores."""
SOON = 1.0
"""Seconds between two looks at the folders, at least."""
STUDY_FILES = ("*", "cells/*/*/seed*/*", "cells/*/*/seed*/rounds/*/metrics.json")
"""What the page of a study is drawn from."""
BEFORE = {"logs", "lock", "prepared", "run.json.part", "study.yaml.part"}
"""What may lie in a folder before it says what it is."""
HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer says; the policy of a page stands in the page."""


@dataclass(frozen=True)
class State:
    """A page as it was drawn last."""

    body: bytes
    """The HTML text."""
    tag: str
    """Its digest, as an entity tag."""
    is_late: bool
    """Whether what is in the folder now could not be drawn."""


class Watched:
    """A page that is drawn anew when the files under it change."""

    def __init__(self, draw: Callable[[], str], files: Callable[[], Iterable[Path]]) -> None:
        self._draw, self._files = draw, files
        self._lock = threading.Lock()
        self._state: State | None = None
        self._seen = ""
        self._next = 0.0

    def state(self) -> State:
        """The page; drawn now if it changed, and if the last drawing is some time ago."""
        with self._lock:
            begin = time.monotonic()
            if self._state is None or begin >= self._next:
                seen = _fingerprint(self._files())
                if self._state is None or self._state.is_late or seen != self._seen:
                    self._state, self._seen = self._drawn(), seen
                self._next = time.monotonic() + SOON + REST * (time.monotonic() - begin)
            return self._state

    def _drawn(self) -> State:
        """A new state; while files come and go it may be the old one, or a page that says why."""
        try:
            return _state(self._draw())
        except (EvaError, OSError) as error:
            if self._state is not None:
                return State(self._state.body, self._state.tag, is_late=True)
            return _state(
                sheet(
                    "waiting.html.j2", {"title": "eva", "why": str(error)}, Charts(), watched=True
                )
            )


class Watch:
    """All pages about some runs or about one study."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._pages = {"/": Watched(partial(_drawn, paths), partial(_files, paths))}
        self._lock = threading.Lock()

    def find(self, address: str) -> Watched | None:
        """The page at an address, or None: "/", or a run of the study that has a page."""
        with self._lock:
            if address not in self._pages:
                run = self._run(address)
                if run is None:
                    return None
                self._pages[address] = Watched(partial(_drawn, [run]), partial(_files, [run]))
            return self._pages[address]

    def _run(self, address: str) -> Path | None:
        """The run of the study whose page has this address."""
        study = self._paths[0]
        runs = {f"/{run.relative_to(study).as_posix()}/{PAGE}": run for run in cells(study)}
        run = runs.get(address) if is_study(study) else None
        return run if run is not None and has_page(run, watched=True) else None


def server(paths: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """A server of the page of runs or of a study, which listens and does not answer yet.

    Args:
        paths: Run directories, or one study directory; they may have begun only now.
        port: Where to listen on 127.0.0.1; 0 takes a free one.

    Raises:
        RunDirError: A folder is missing, or holds something else.
        BackEndError: The port is taken or not allowed.
    """
    for path in paths:
        _check_may_grow(path)
    warm()
    try:
        return ThreadingHTTPServer((HOST, port), _handler(Watch(paths)))
    except OSError as error:
        raise BackEndError(
            f"cannot listen on {HOST}:{port} ({error}); name another --port, or 0 for a free one"
        ) from error


def _handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    """What answers one connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds that a silent browser keeps its thread
        server_version = "eva"
        sys_version = ""

        def do_GET(self) -> None:
            port = self.connection.getsockname()[1]
            if self.headers.get_all("Host", []) not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
                return self.answer(421, f"this server answers to {HOST}:{port} alone".encode())
            found = watch.find(unquote(self.path.partition("?")[0]))
            if found is None:
                return self.answer(404, b"there is no such page")
            state = found.state()
            if self.headers.get("If-None-Match") == state.tag:
                return self.answer(503 if state.is_late else 304, tag=state.tag)
            return self.answer(200, state.body, "text/html; charset=utf-8", state.tag)

        def answer(
            self, status: int, body: bytes = b"", kind: str = "text/plain", tag: str | None = None
        ) -> None:
            headers = HEADERS | ({"ETag": tag} if tag else {})
            if status != 304:
                headers |= {"Content-Type": kind, "Content-Length": str(len(body))}
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:  # the browser has gone
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Tell nothing: the terminal holds the address and what the person does."""

    return Handler


def _drawn(paths: Sequence[Path]) -> str:
    """The page of a study or of runs as they are now."""
    if is_study(paths[0]):
        return studied.page(paths[0], watched=True)
    for path in paths:
        if not (path / "recipe.yaml").is_file():
            raise RunDirError(f"nothing has begun in {path} yet; this page waits for it")
    return page.page(paths, watched=True)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """What the page is drawn from."""
    for path in paths:
        for form in STUDY_FILES if is_study(path) else RUN_FILES:
            yield from path.glob(form)


def _fingerprint(files: Iterable[Path]) -> str:
    """A digest of names, sizes and times; a file that goes meanwhile counts as gone."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        try:
            known = file.stat()
        except OSError:
            continue
        digest.update(f"{file}\0{known.st_size}\0{known.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def _state(text: str) -> State:
    body = text.encode()
    return State(body, f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"', is_late=False)


def _check_may_grow(path: Path) -> None:
    """Refuse a folder that is no run, no study, and not about to become one."""
    if not path.is_dir():
        raise RunDirError(f"there is no folder {path}; start eva run or eva study, then watch it")
    known = is_study(path) or any((path / n).exists() for n in ("recipe.yaml", "run.json"))
    foreign = sorted({entry.name for entry in path.iterdir()} - BEFORE)
    if not known and foreign:
        raise RunDirError(
            f"{path} is neither a run nor a study and holds other files ({', '.join(foreign[:3])});"
            " name the folder that eva run or eva study writes"
        )
