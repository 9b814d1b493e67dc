"""The run directory: stages are made once, written whole, and from then on read.

A file is written beside its place, synced and renamed, so it is there whole or not at all. A run
that was killed finds every finished stage (and every finished chunk of a long one) and makes the
rest; as all randomness is named, it makes the same bytes. Only this module writes.
"""

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import JsonValue, ValidationError

from eva.errors import RunDirError
from eva.protocols import Progress
from eva.records import Checkpoint, Prompt, Record, Refused, RunState

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout of a run directory; a run of another format is refused."""
RESTORE = "restore it from a copy, or give the run a new folder and play it again"
"""What to do about a file that others were made from."""
INSIDE = "run:"
"""Marks the uri of a checkpoint that lies in the run directory, which may be moved."""

R = TypeVar("R", bound=Record)
A = TypeVar("A")
S = ParamSpec("S")


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file so that it is there whole or not at all, even if the power fails.

    A name that a power failure forgets costs the work and nothing else: the stage is made again.

    Raises:
        RunDirError: The disk is full, or the folder cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines, whole; see `write_whole`."""
    write_whole(path, (record.model_dump_json().encode() + b"\n" for record in records))


def write_json(path: Path, value: JsonValue, *, is_sorted: bool = True) -> None:
    """Write one JSON value, its keys sorted or as they come, whole; see `write_whole`."""
    text = json.dumps(value, indent=1, sort_keys=is_sorted, ensure_ascii=False, allow_nan=False)
    write_whole(path, [text.encode(), b"\n"])


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read JSON lines; the file is cut at line feeds alone, for U+2028 is text.

    Raises:
        RunDirError: A line is no such record; names file and line.
    """
    records = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                records.append(kind.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise RunDirError(
                    f"{path}:{number} is no {kind.__name__} ({first['msg']}): it was damaged after "
                    f"it was written; {RESTORE}"
                ) from error
    return records


@dataclass(frozen=True)
class Room:
    """The folder of one round, where its stages lie."""

    path: Path
    """The folder."""
    progress: Progress
    """Told how far each stage is."""

    def whole(
        self,
        stage: str,
        kind: type[R],
        make: Callable[S, Sequence[R]],
        *args: S.args,
        **kwargs: S.kwargs,
    ) -> list[R]:
        """The records of a stage: read if it was finished, else made by make(*args) and written."""
        path = self.path / f"{stage}.jsonl"
        if not path.exists():
            write_records(path, make(*args, **kwargs))
            log.info("made %s", path)
        return read_records(path, kind)

    def part(
        self,
        stage: str,
        number: int,
        kind: type[R],
        make: Callable[S, Sequence[R]],
        *args: S.args,
        **kwargs: S.kwargs,
    ) -> list[R]:
        """The records of one numbered part of a long stage: read, or made and written."""
        return self.whole(f"{stage}/{number:06d}", kind, make, *args, **kwargs)

    def parts(self, stage: str, kind: type[R]) -> list[R]:
        """The records of all parts of a stage that are there, in order."""
        files = sorted((self.path / stage).glob("*.jsonl"))
        return [record for file in files for record in read_records(file, kind)]

    def chunks(
        self,
        stage: str,
        kind: type[R],
        over: Sequence[A],
        make: Callable[[Sequence[A]], Sequence[R]],
        size: int,
    ) -> list[R]:
        """The records of a long stage, made `size` inputs at a time; a kill loses one chunk."""
        records: list[R] = []
        self.progress(stage, 0, len(over))
        for number, start in enumerate(range(0, len(over), size)):
            records += self.part(stage, number, kind, make, over[start : start + size])
            self.progress(stage, min(start + size, len(over)), len(over))
        return records

    def read(self, stage: str, kind: type[R]) -> list[R]:
        """The records of a stage that is known to be finished.

        Raises:
            RunDirError: Its file is gone, or damaged.
        """
        path = self.path / f"{stage}.jsonl"
        if not path.exists():
            raise RunDirError(f"{path} is gone; {RESTORE}")
        return read_records(path, kind)

    def found(self, stage: str, kind: type[R]) -> list[R]:
        """The records of a stage, or none if this round did without it."""
        return self.read(stage, kind) if (self.path / f"{stage}.jsonl").exists() else []

    def folder(self, name: str) -> Path:
        """A folder in this room for a learner; it holds what a killed attempt left there."""
        path = self.path / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path


@dataclass(frozen=True)
class RunDir:
    """A run directory that this process holds for writing; made by `held`."""

    path: Path
    """The folder."""
    progress: Progress
    """Told how far each stage is."""

    def room(self, t: int) -> Room:
        """The folder of round t."""
        return Room(self.path / "rounds" / f"{t:03d}", self.progress)

    def eval_path(self, t: int) -> Path:
        """Where the metrics of checkpoint theta_t stand."""
        return self.path / "evals" / f"{t:03d}.json"

    def eval_room(self, name: str) -> Room:
        """Where the answers to the held-out set `name` lie."""
        return Room(self.path / "evals" / name, self.progress)

    def state(self) -> RunState | None:
        """All that the next round needs, or None before the first."""
        path = self.path / "state.json"
        if not path.exists():
            return None
        try:
            fields = json.loads(path.read_bytes())
            pool = self.room(fields["round"]).read("pool", Prompt)
            return RunState(**fields, pool=tuple(pool))
        except (ValueError, KeyError, TypeError) as error:
            raise RunDirError(f"{path} was damaged ({error}); {RESTORE}") from error

    def begin(self, state: RunState, refused: Sequence[Refused]) -> None:
        """Lay down the state before round 0, and the given prompts that cannot be used."""
        if refused:
            write_records(self.path / "refused.jsonl", refused)
        self._enter(state)

    def close_round(self, after: RunState, metrics: Mapping[str, float]) -> None:
        """Write the metrics of the round that ends and make `after` the state to go on from."""
        write_json(self.room(after.round - 1).path / "metrics.json", dict(metrics))
        self._enter(after)

    def metrics(self, t: int) -> dict[str, float]:
        """The metrics of round t and the held-out ones of theta_t, as far as they exist."""
        paths = (self.room(t).path / "metrics.json", self.eval_path(t))
        return {
            key: value
            for path in paths
            if path.exists()
            for key, value in json.loads(path.read_bytes()).items()
        }

    def _enter(self, state: RunState) -> None:
        write_records(self.room(state.round).path / "pool.jsonl", state.pool)
        last = self.room(max(0, state.round - 1)).path
        for folder in (last, self.room(state.round).path, self.path / "rounds", self.path):
            _sync(folder)
        write_json(self.path / "state.json", state.model_dump(mode="json", exclude={"pool"}))

    def located(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with a uri that can be opened from anywhere on this machine."""
        if not checkpoint.uri.startswith(INSIDE):
            return checkpoint
        uri = str(self.path / checkpoint.uri.removeprefix(INSIDE))
        return Checkpoint(uri=uri, id=checkpoint.id)

    def relative(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with a uri that survives moving the run directory."""
        home, uri = self.path, Path(checkpoint.uri)
        if not uri.is_absolute() or not uri.resolve().is_relative_to(home):
            return checkpoint
        inside = uri.resolve().relative_to(home).as_posix()
        return Checkpoint(uri=INSIDE + inside, id=checkpoint.id)


@contextmanager
def held(
    path: Path,
    recipe: str,
    facts: Mapping[str, JsonValue],
    *,
    agree: Callable[[str, str], None],
    progress: Progress,
) -> Iterator[RunDir]:
    """Hold a run directory as its one writer.

    Args:
        path: The folder; made if it is missing.
        recipe: The whole recipe as YAML; written to `recipe.yaml`.
        facts: Versions, host and inputs, for `run.json`; written once, when the directory is made.
            What stands under "inputs" must be the same when the run goes on.
        agree: Called with the recipe that stands in the folder and with `recipe`, if they differ;
            raises if the run must not go on with the new one.
        progress: Told how far each stage is.

    Raises:
        RunDirError: Another process holds the directory, it holds something else than a run, its
            format is unknown, its inputs were others, or it cannot be written.
    """
    _check_is_ours(path)
    with locked(path / "logs" / "lock", path, "run"):
        _sweep(path)
        if not (path / "run.json").exists():
            write_json(path / "run.json", {**facts, "format": FORMAT})
        known = _known_facts(path / "run.json")
        found = standing.read_text("utf-8") if (standing := path / "recipe.yaml").exists() else None
        if found is not None and found != recipe:
            agree(found, recipe)
        _check_inputs(path, known.get("inputs"), facts.get("inputs"))
        if found != recipe:
            write_whole(standing, [recipe.encode()])
        yield RunDir(path.resolve(), progress)


def settle(folder: Path) -> None:
    """Sync every file below a folder that a plug-in wrote, before a record points at it."""
    for path in (*sorted(folder.rglob("*")), folder):
        _sync(path)


def attempt_log(path: Path) -> Path:
    """The log file of this attempt: `logs/attempt_N.log` with the next N."""
    numbers = [
        int(log.stem.removeprefix("attempt_"))
        for log in (path / "logs").glob("attempt_*.log")
        if log.stem.removeprefix("attempt_").isdigit()
    ]
    return path / "logs" / f"attempt_{max(numbers, default=0) + 1}.log"


def _check_is_ours(path: Path) -> None:
    """Refuse a folder that holds something else: a run never mixes with other files."""
    if not path.is_dir() or (path / "run.json").exists():
        return
    foreign = sorted({entry.name for entry in path.iterdir()} - {"logs", "run.json.part"})
    if foreign:
        raise RunDirError(
            f"{path} is no run directory and holds other files ({', '.join(foreign[:3])}); name "
            "an empty or a new folder for the run"
        )


def _sweep(path: Path) -> None:
    """Remove the halves of files that a kill left; what a learner wrote is the learner's."""
    for place in ("*", "rounds/*/*", "rounds/*/*/*", "evals/*", "evals/*/*"):
        for torn in path.glob(f"{place}.part"):
            if torn.parent.name != "learn":
                torn.unlink()


def _known_facts(path: Path) -> dict[str, JsonValue]:
    """What `run.json` says; a run of another format is refused."""
    try:
        found: dict[str, JsonValue] = json.loads(path.read_bytes())
        made = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{path} is no JSON object of a run; {RESTORE}") from error
    if made != FORMAT:
        raise RunDirError(
            f"{path.parent} has format {made}; this eva reads format {FORMAT}: use the eva that "
            "made it"
        )
    return found


def _check_inputs(path: Path, then: JsonValue, now: JsonValue) -> None:
    """Refuse a run whose recipe is the same, but whose files say something else than before."""
    before = then if isinstance(then, dict) else {}
    after = now if isinstance(now, dict) else {}
    changed = sorted(name for name in after if after[name] != before.get(name))
    if changed:
        raise RunDirError(
            f"what the run in {path} reads has changed since it began ({', '.join(changed)}); "
            "restore it, or give this run another folder"
        )


@contextmanager
def locked(lock: Path, owner: Path, what: str) -> Iterator[None]:
    """Hold the file `lock`, which names its holder; the system frees it when a process dies.

    Raises:
        RunDirError: Another process holds `owner`, the folder of `what`, or it cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+")
    except OSError as error:
        raise cannot_write(lock, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunDirError(
                f"{owner} is being written by {file.read().strip() or 'another process'}; wait for "
                f"it, stop it, or give this {what} another folder"
            ) from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
            file.flush()
        except OSError as error:
            raise cannot_write(lock, error) from error
        yield


def _sync(path: Path) -> None:
    """Sync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError) -> RunDirError:
    """What to do when a file cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = "free some space" if full else "make the folder writable"
    return RunDirError(
        f"cannot write {path}: {error.strerror or error}; {what} and run the same command again (a "
        "run goes on from its last finished stage)"
    )
