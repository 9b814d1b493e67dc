"""An update in a process of its own: the order for it, and the error that comes back, in files."""

import atexit
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import Field, JsonValue

from eva.contracts import plug_in
from eva.errors import BackEndError, EvaError, PlugInError, RecipeError, RunDirError
from eva.parts.learners import OwnOffline
from eva.parts.policies import LanguageModel
from eva.records import Checkpoint, Record, Rollout
from eva.seeds import digest
from eva.store import write_json

log = logging.getLogger(__name__)

LAUNCH = "launch"
"""Where the order for processes of eva's own learners lies, in the folder of the update."""

KINDS = {kind.__name__: kind for kind in (RecipeError, PlugInError, BackEndError, RunDirError)}
"""The errors that can cross from one process to another."""


def lessons_digest(lessons: Sequence[Rollout]) -> str:
    """What the lessons of an update are: prompts, responses and rewards."""
    return digest(digest([lesson.model_dump_json()]) for lesson in lessons)


class Counts(Record):
    """What became of the lessons of an update."""

    pairs: int
    """Pairs in the file of pairs."""
    ties: int
    """Groups without a pair, since their rewards are all equal."""
    missing: int
    """Groups without a pair, since fewer than two rewards could be had."""
    cut: int
    """Pairs with a response that was cut at the token limit: in the file of pairs for a command,
    left out of it for TRL."""


class Job(Record):
    """The order for a program that trains on text: `job.json` in the folder of the update."""

    command: tuple[str, ...]
    """The command or the launcher, as the recipe gives it."""
    start: str
    """The model that the update starts from, also its reference: a folder or a hub id."""
    start_id: str
    """What those weights are."""
    revision: str | None
    """Branch, tag or commit, where `start` is a hub id."""
    reference: str
    """The reference policy; always the start."""
    pairs: str
    """The file of preference pairs."""
    rollouts: str
    """The file of the lessons whole, with token ids and all rewards."""
    out: str
    """The folder for the new model."""
    folder: str
    """The folder of the update; what is kept there beside `out` is found again after a kill."""
    seed: int
    """The seed of the update, in [0, 2**31)."""
    lessons: str
    """What the lessons are, as a digest."""
    counts: Counts
    """What became of the lessons."""
    device: str
    """The device of the recipe's policy."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """The arguments that the recipe gives to TRL."""


class OwnJob(Record):
    """The order for one of eva's own learners: `launch/job.json` in the folder of the update."""

    learner: Annotated[OwnOffline, Field(discriminator="kind")]
    """The learner's part of the recipe."""
    policy: LanguageModel
    """The policy's part."""
    start: Checkpoint
    """The weights that the update starts from."""
    lessons: str
    """What the lessons are, as a digest."""
    rollouts: str
    """The file of the lessons."""
    out: str
    """The folder of the update."""
    seed: int
    """The seed of the update."""
    result: str
    """The file that the resulting checkpoint is written to, as a record."""


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Leave an error as a file for the process that started this one, and end with exit code 1."""
    try:
        with plug_in("learner"):
            yield
    except EvaError as error:
        log.exception("the update failed")
        found: dict[str, JsonValue] = {"kind": type(error).__name__, "text": str(error)}
        write_json(folder / f"error-{os.getpid()}.json", found)
        raise SystemExit(1) from error


def leave() -> NoReturn:
    """End this process, whose work is done, without destroying what PyTorch holds.

    In torch 2.13 the destructor of a gloo group joins a thread while it holds Python's lock, which
    the thread may be waiting for: a process that has done its work would then hang for ever.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def forget_errors(folder: Path) -> None:
    """Remove what an earlier attempt left."""
    for path in folder.glob("error-*.json"):
        path.unlink()


def first_error(folder: Path) -> EvaError | None:
    """The error that a process left in a folder; of several, the first: it caused the others."""
    paths = sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not paths:
        return None
    fields = json.loads(paths[0].read_bytes())
    return KINDS[fields["kind"]](fields["text"])
