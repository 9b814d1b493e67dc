"""How far the runs of a study are, from its directory alone; nothing there is written."""

import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import quote

import yaml
from pydantic import JsonValue

from eva.errors import RunDirError
from eva.findings import Findings
from eva.recipe import parsed

PAGE = "report.html"
"""The name of a page in the folder that it is about."""

RUN_FILES = ("*", "evals/*.json", "rounds/*/*", "rounds/*/*/*.jsonl")
"""What the page of a run is drawn from."""


@dataclass(frozen=True)
class Going:
    """A run that has no result yet."""

    path: str
    """Its run directory, relative to the study's."""
    said: str
    """How far it is, in words."""
    is_running: bool
    """Whether a process holds its log."""
    link: str | None
    """The address of its page while it is watched; None where there is none."""


@dataclass(frozen=True)
class Begun:
    """The runs of a study that have folders."""

    name: str
    """The study."""
    question: str
    """What it asks."""
    cells: int
    """Runs that were begun."""
    finished: int
    """Those that have a result."""
    planned: int | None
    """Those that the plan asks for; None without a plan."""
    going: tuple[Going, ...]
    """Those that have no result."""
    done: bool
    """Whether there are findings, and they tell of every run that was begun."""

    @property
    def running(self) -> int:
        """How many are being played."""
        return sum(run.is_running for run in self.going)

    @property
    def stopped(self) -> int:
        """How many are not: they failed, or the study was stopped."""
        return len(self.going) - self.running


def begun(path: Path, found: Findings | None, *, watched: bool = False) -> Begun:
    """The runs of a study that have folders.

    Args:
        path: The folder of the study.
        found: What it found, if it did.
        watched: Whether the page is watched, so that a run that goes on has a page too.

    Raises:
        RunDirError: Its plan is damaged.
    """
    plan = _plan(path / "study.yaml")
    folders = list(cells(path))
    going = [folder for folder in folders if not (folder / "result.json").is_file()]
    told = {cell.path for cell in found.cells} if found else set[str]()
    return Begun(
        name=str(plan.get("name") or path.resolve().name),
        question=str(plan.get("question") or ""),
        cells=len(folders),
        finished=len(folders) - len(going),
        planned=_planned(plan) if plan else None,
        going=tuple(_going(path, folder, watched) for folder in going),
        done=found is not None and all(f.relative_to(path).as_posix() in told for f in going),
    )


def is_study(path: Path) -> bool:
    """Whether a folder is that of a study, finished or not."""
    return any((path / name).is_file() for name in ("findings.json", "study.yaml"))


def cells(path: Path) -> Iterator[Path]:
    """The run directories of a study, in the order of their names."""
    yield from sorted(folder for folder in path.glob("cells/*/*/seed*") if folder.is_dir())


def is_kept(run: Path) -> bool:
    """Whether a run directory was kept whole: not its numbers alone, but its prompts too."""
    return (run / "recipe.yaml").is_file() and any(run.glob("rounds/*/pool.jsonl"))


def has_page(run: Path, *, watched: bool) -> bool:
    """Whether a run of a study has a page of its own; while it is watched, one that goes on too."""
    goes_on = (run / "recipe.yaml").is_file() and not (run / "result.json").is_file()
    return is_kept(run) or (watched and goes_on)


def is_drawn(run: Path) -> bool:
    """Whether the page in a run directory is newer than its files, and than what draws them."""
    page = run / PAGE
    if not page.is_file():
        return False
    files = [file for form in RUN_FILES for file in run.glob(form) if file.name != PAGE]
    files += Path(__file__).parent.iterdir()
    return all(file.stat().st_mtime_ns < page.stat().st_mtime_ns for file in files)


def link(run: Path, home: Path) -> str:
    """The address of a run's page from a page in the folder `home`."""
    return quote(f"{Path(os.path.relpath(run, home)).as_posix()}/{PAGE}")


def _going(path: Path, folder: Path, watched: bool) -> Going:
    is_running = _is_held(folder / "logs" / "study.log")
    rounds = _plan(folder / "recipe.yaml").get("rounds")
    ended = len(list(folder.glob("rounds/*/metrics.json")))
    said = "running" if is_running else "stopped or failed"
    return Going(
        path=folder.relative_to(path).as_posix(),
        said=f"{ended} of {rounds} rounds; {said}" if rounds else said,
        is_running=is_running,
        link=link(folder, path) if watched and has_page(folder, watched=True) else None,
    )


def _is_held(log: Path) -> bool:
    """Whether a process holds the log of a run; one that wants to meanwhile tries again."""
    try:
        with log.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _plan(path: Path) -> Mapping[str, JsonValue]:
    """The keys of a YAML file; none if it is not there yet."""
    try:
        found = parsed(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunDirError(f"{path} is no YAML; restore it or use another folder") from error
    if not isinstance(found, dict):
        raise RunDirError(f"{path} holds no keys; restore it or use another folder")
    return found


def _planned(plan: Mapping[str, JsonValue]) -> int:
    """How many runs a plan asks for: those of its table and those that settings are chosen by."""
    factors = _tree(plan.get("factors"))
    table = math.prod(_length(levels) for levels in factors.values())
    total = _length(plan.get("seeds")) * table
    tune = _tree(plan.get("tune"))
    if tune:
        over = tune.get("over")
        levels = [
            list(_tree(factors[name]).values()) for name in factors
            if isinstance(over, list) and name in over
        ]  # fmt: skip
        tried = sum(_tried(tune, place) for place in product(*levels))
        total += _length(tune.get("seeds")) * tried
    return _length(plan.get("arms")) * total


def _tried(tune: Mapping[str, JsonValue], place: tuple[JsonValue, ...]) -> int:
    """How many settings are tried where these levels meet: the last own grid of a level counts."""
    own = [_tree(level)["grid"] for level in place if "grid" in _tree(level)]
    grid = own[-1] if own else tune.get("grid")
    if isinstance(grid, dict):
        return math.prod(_length(values) for values in grid.values())
    return _length(grid)


def _tree(part: JsonValue) -> Mapping[str, JsonValue]:
    return part if isinstance(part, dict) else {}


def _length(part: JsonValue) -> int:
    return len(part) if isinstance(part, list | dict) else 0
