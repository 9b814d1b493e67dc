"""A copy of the run directory elsewhere: a bucket, a share, any URL that `fsspec` can write.

A run works on a local folder, for it needs locks and renames, which buckets lack. Beside it a
thread copies what is new, the oldest first, so that the copy is at any time what a kill would have
left a moment ago: on another machine the run goes on from it.
"""

import json
import logging
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias

from eva.errors import RunDirError
from eva.extras import extra

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two looks at the run directory."""
INDEX = "mirror.json"
"""What was copied, in the copy itself: it saves copying all again."""
SKIPPED = (".part", "-wal", "-shm", "-journal")
"""Endings of files that are half of something."""

Known: TypeAlias = dict[str, tuple[int, int]]
"""Files by their place in the run directory: size in bytes, and time of the last change in ns."""


@contextmanager
def mirrored(path: Path, url: str | None, every: float = EVERY) -> Iterator[None]:
    """Keep a copy of the run directory `path` at `url` while inside; None keeps none.

    If `path` is no run yet and there is a copy at `url`, it is fetched first. Leaving copies what
    is left.

    Args:
        path: The run directory.
        url: Where `fsspec` finds the copy, e.g. s3://bucket/run or file:///share/run.
        every: Seconds between two copies.

    Raises:
        RecipeError: `fsspec`, or what it needs for this kind of URL, is not installed.
        RunDirError: The copy cannot be read or, at the end, written.
    """
    if url is None:
        yield
        return
    mirror = Mirror(path, url)
    if not (path / "run.json").exists():
        mirror.fetch()
    done = Event()
    thread = Thread(target=mirror.watch, args=(done, every), name="eva-mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        mirror.push()


class Mirror:
    """A run directory and its copy."""

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        with extra("mirror", f"a mirror at {url}"):
            from fsspec.core import url_to_fs
        try:
            found: tuple[Any, str] = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise RunDirError(
                f"the mirror {url} cannot be opened ({error}); install what this kind of URL needs "
                "(s3fs for s3://, gcsfs for gs://), or give another"
            ) from error
        self._files, self._root = found[0], found[1].rstrip("/")
        self._copied: Known = self._index()

    def watch(self, done: Event, every: float) -> None:
        """Copy again and again until `done`; what fails is tried again."""
        while not done.wait(every):
            try:
                self.push()
            except RunDirError as error:
                log.warning("%s; it is tried again", error)

    def push(self) -> None:
        """Copy what is new, the oldest first, then remove what is gone.

        Raises:
            RunDirError: The copy cannot be written.
        """
        now = standing(self._path)
        new = sorted((n for n in now if now[n] != self._copied.get(n)), key=lambda n: now[n][1])
        gone = [name for name in self._copied if name not in now]
        try:
            for name in new:
                self._put(name)
                self._copied[name] = now[name]
            for name in gone:
                self._files.rm_file(f"{self._root}/{name}")
                del self._copied[name]
            if new or gone:
                self._files.pipe_file(f"{self._root}/{INDEX}", json.dumps(self._copied).encode())
        except Exception as error:  # each kind of URL raises its own
            raise RunDirError(
                f"the mirror {self._url} cannot be written ({type(error).__name__}: {error}); the "
                f"run in {self._path} is whole: run the same command again"
            ) from error

    def fetch(self) -> None:
        """Make the run directory from the copy, if there is one.

        Raises:
            RunDirError: The copy cannot be read.
        """
        try:
            there = [found.removeprefix(f"{self._root}/") for found in self._listed()]
            # run.json makes a folder a run: without it, a fetch that was killed begins again.
            for name in sorted(there, key=lambda name: name == "run.json"):
                target = self._path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{self._root}/{name}", str(target))
        except Exception as error:  # each kind of URL raises its own
            raise RunDirError(
                f"the mirror {self._url} cannot be read ({type(error).__name__}: {error}); restore "
                "it, or give the run another mirror"
            ) from error
        if there:
            log.info("fetched %d files from %s", len(there), self._url)
        self._copied = {n: found for n, found in standing(self._path).items() if n in set(there)}

    def _listed(self) -> list[str]:
        """The files of the copy; not the index, for files may have come after it was written."""
        found: list[str] = self._files.find(self._root) if self._files.exists(self._root) else []
        return [name for name in found if not name.endswith((f"/{INDEX}", *SKIPPED))]

    def _put(self, name: str) -> None:
        """Copy one file; of a data base that is in use, a snapshot."""
        target, source = f"{self._root}/{name}", self._path / name
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        if source.suffix != ".sqlite":
            self._put_whole(source, target)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / source.name
            with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(copy)) as there:
                here.backup(there)
            self._put_whole(copy, target)

    def _put_whole(self, source: Path, target: str) -> None:
        """Buckets show a file when it is whole; a folder needs a rename for that."""
        if "file" not in self._files.protocol:
            self._files.put_file(str(source), target)
            return
        self._files.put_file(str(source), f"{target}.part")
        Path(f"{target}.part").replace(target)

    def _index(self) -> Known:
        place = f"{self._root}/{INDEX}"
        try:
            if not self._files.exists(place):
                return {}
            found: Mapping[str, list[int]] = json.loads(self._files.cat_file(place))
        except Exception as error:  # each kind of URL raises its own
            raise RunDirError(
                f"the mirror {self._url} cannot be read ({type(error).__name__}: {error}); check "
                "the address and your right to it"
            ) from error
        return {name: (size, changed) for name, (size, changed) in found.items()}


def standing(path: Path) -> Known:
    """The whole files of a run directory; logs/lock, which names the holder, stays at home."""
    found: Known = {}
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        if name == "logs/lock" or name.endswith(SKIPPED) or ".part/" in name:
            continue
        try:
            if file.is_file():
                status = file.stat()
                found[name] = (status.st_size, status.st_mtime_ns)
        except FileNotFoundError:  # removed between the two looks
            continue
    return found
