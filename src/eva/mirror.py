"""A copy of the run directory elsewhere: a bucket, a share, any URL that `fsspec` can write.

A run works on a local folder, for it needs locks and renames, which buckets lack. Beside it a
thread copies what is new, the oldest first, so that the copy is at any time what a kill would have
left a moment ago: on another machine the run goes on from it.
"""

import json
import logging
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
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
GONE = (FileNotFoundError, NotADirectoryError)
"""What is raised for a file or folder that was removed between two looks."""

Known: TypeAlias = dict[str, tuple[int, int]]
"""Files by their place in the run directory: size in bytes, and time of the last change in ns."""


@contextmanager
def mirrored(path: Path, url: str | None, every: float = EVERY) -> Iterator[None]:
    """Keep a copy of the run directory `path` at `url` while inside; None keeps none.

    If `path` is no run yet and there is a copy at `url`, it is fetched first. Leaving copies what
    is left; where an error ends the run, a failure to copy is logged and the error goes on.

    Args:
        path: The run directory.
        url: Where `fsspec` finds the copy, e.g. s3://bucket/run or file:///share/run.
        every: Seconds between two copies.

    Raises:
        RecipeError: `fsspec`, or what it needs for this kind of URL, is not installed.
        RunDirError: The copy is of another run or further on, or cannot be read or, at the end,
            written.
    """
    if url is None:
        yield
        return
    mirror = Mirror(path, url)
    mirror.begin()
    if not (path / "run.json").exists():
        mirror.fetch()
    done = Event()
    thread = Thread(target=mirror.watch, args=(done, every), name="eva-mirror", daemon=True)
    thread.start()
    try:
        try:
            yield
        finally:
            done.set()
            thread.join()
    except BaseException:
        mirror.try_push("the run has ended")
        raise
    mirror.push()


class Mirror:
    """A run directory and its copy.

    Raises:
        RecipeError: `fsspec` is not installed.
        RunDirError: The copy cannot be read, is of another run, or is further on.
    """

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
        self._check()
        # What this process saw here; all else in the copy may be the work of another machine.
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Write once, so that a copy that cannot be made is known before the run, not after it.

        Raises:
            RunDirError: The copy cannot be written, or would lie in the run directory.
        """
        is_local = "file" in self._files.protocol
        if is_local and Path(self._root).resolve().is_relative_to(self._path.resolve()):
            raise RunDirError(
                f"the mirror {self._url} lies in the run directory {self._path}; give another place"
            )
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._write_index()
        except Exception as error:  # each kind of URL raises its own
            remedy = "nothing was played: give a mirror that you may write to"
            raise self._failure("written", error, remedy) from error

    def watch(self, done: Event, every: float) -> None:
        """Copy again and again until `done`; what fails is tried again."""
        while not done.wait(every):
            self.try_push("it is tried again")

    def try_push(self, after: str) -> None:
        """Copy what is new; a failure is logged, with what comes `after` it."""
        try:
            self.push()
        except Exception as error:  # noqa: BLE001  # a copy that fails must not stop the run
            log.warning("%s: %s; %s", type(error).__name__, error, after)

    def push(self) -> None:
        """Copy what is new, the oldest first, then remove what is gone.

        Raises:
            RunDirError: The copy cannot be written.
        """
        try:
            now = standing(self._path)
            self._seen |= now.keys()
            new = sorted((n for n in now if now[n] != self._copied.get(n)), key=lambda n: now[n][1])
            gone = [n for n in self._copied if n in self._seen and n not in now]
            for name in new:
                self._put(name)
                self._copied[name] = now[name]
            for name in gone:
                with suppress(FileNotFoundError):  # an attempt that was cut off may have removed it
                    self._files.rm_file(f"{self._root}/{name}")
                del self._copied[name]
            if new or gone:
                self._write_index()
        except Exception as error:  # each kind of URL raises its own
            remedy = f"the run in {self._path} is whole: run the same command again"
            raise self._failure("written", error, remedy) from error

    def _write_index(self) -> None:
        self._files.pipe_file(f"{self._root}/{INDEX}", json.dumps(self._copied).encode())

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
            now = standing(self._path)
        except Exception as error:  # each kind of URL raises its own
            remedy = "restore it, or give the run another mirror"
            raise self._failure("read", error, remedy) from error
        if there:
            log.info("fetched %d files from %s", len(there), self._url)
        self._copied = {name: now[name] for name in there if name in now}
        self._seen |= self._copied.keys()

    def _check(self) -> None:
        """Refuse to write over a copy that is of another run, or further on than this one."""
        if not (self._path / "run.json").exists():
            return
        try:
            is_other = self._there("run.json") not in (None, _read(self._path / "run.json"))
            is_behind = _round(_read(self._path / "state.json")) < _round(self._there("state.json"))
        except Exception as error:  # each kind of URL raises its own
            what = f"compared with {self._path}"
            remedy = "restore what is damaged of the two, or give the run another mirror"
            raise self._failure(what, error, remedy) from error
        if is_other:
            raise RunDirError(
                f"the mirror {self._url} is the copy of another run than the one in {self._path}; "
                "give this run another mirror"
            )
        if is_behind:
            raise RunDirError(
                f"the mirror {self._url} is rounds ahead of the run in {self._path}; remove that "
                "folder, so that the same command fetches the copy, or give another mirror"
            )

    def _there(self, name: str) -> bytes | None:
        """A file of the copy, or None."""
        place = f"{self._root}/{name}"
        found: bytes | None = self._files.cat_file(place) if self._files.exists(place) else None
        return found

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
        try:
            found: Mapping[str, list[int]] = json.loads(self._there(INDEX) or b"{}")
        except Exception as error:  # each kind of URL raises its own
            remedy = "check the address and your right to it"
            raise self._failure("read", error, remedy) from error
        return {name: (size, changed) for name, (size, changed) in found.items()}

    def _failure(self, what: str, error: Exception, remedy: str) -> RunDirError:
        cause = f"{type(error).__name__}: {error}"
        return RunDirError(f"the mirror {self._url} cannot be {what} ({cause}); {remedy}")


def standing(path: Path) -> Known:
    """The whole files of a run directory; logs/lock, which names the holder, stays at home.

    Raises:
        OSError: A folder cannot be read, for another reason than that it is gone.
    """
    found: Known = {}
    walk = os.walk(path, onerror=_raise_unless_gone)
    for file in (Path(folder, name) for folder, _, names in walk for name in names):
        name = file.relative_to(path).as_posix()
        if name == "logs/lock" or name.endswith(SKIPPED) or ".part/" in name:
            continue
        if status := _status(file):
            found[name] = status
    return found


def _raise_unless_gone(error: OSError) -> None:
    """A folder that cannot be read is not empty: its files must not pass for removed."""
    if not isinstance(error, GONE):
        raise error


def _status(file: Path) -> tuple[int, int] | None:
    """Size and last change, of a data base with what waits beside it; None if there is no file."""
    try:
        found = file.stat()
    except GONE:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    waiting = _status(file.with_name(f"{file.name}-wal")) if file.suffix == ".sqlite" else None
    size, changed = waiting or (0, 0)
    return found.st_size + size, max(found.st_mtime_ns, changed)


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _round(state: bytes | None) -> int:
    """The round that a state.json says comes next; -1 before there is one."""
    return -1 if state is None else int(json.loads(state)["round"])
