"""The page of a study: its question, its claims, its numbers with intervals, and its runs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from eva.findings import (
    UNEQUAL,
    Cell,
    Findings,
    Made,
    Outcome,
    Picture,
    Row,
    pictures_of,
    ran,
    read_findings,
    told,
)
from eva.report import figures
from eva.report.begun import begun, is_kept, link
from eva.report.sheet import Charts, Figure, sheet

COUNTED = {
    "prompts": "prompts answered",
    "samples": "responses",
    "tokens": "tokens generated",
    "steps": "gradient steps",
    "evolver_calls": "calls of the evolver",
}
"""What is counted as spent, in words; another count keeps its name."""
STARTS = {"theta_0": "\u03b8\u2080", "theta_1": "\u03b8\u2081"}
"""What the tables call checkpoints that arms share."""
OUTCOMES: dict[Outcome, str] = {"holds": "good", "does not hold": "bad", "not resolved": "open"}
"""The look of a claim by what became of it."""


@dataclass(frozen=True)
class Group:
    """The part of the tables that speaks of one place."""

    where: str
    """The place in words; empty where there is one alone."""
    rows: tuple[Row, ...]
    """The arms."""
    differences: tuple[Row, ...]
    """What one arm ends above another."""


@dataclass(frozen=True)
class Part:
    """A section of figures."""

    id: str
    """Its anchor."""
    short: str
    """Its name in the list of sections."""
    title: str
    """Its heading."""
    say: str
    """How to read it."""
    figures: tuple[Figure, ...]
    """A figure for each metric, and for each place where it has several."""
    has_legend: bool = True
    """Whether its lines are told apart by the colours of the arms."""


@dataclass(frozen=True)
class Played:
    """A run of the study, as it is listed."""

    cell: Cell
    """What it is."""
    levels: tuple[str, ...]
    """Its level of each factor."""
    setting: str
    """Its setting in words; empty without a grid."""
    link: str | None
    """The address of its own page; None if the run was not kept whole."""


@dataclass(frozen=True)
class Lot:
    """The runs of one arm."""

    arm: str
    """The arm."""
    index: int
    """Its colour."""
    table: tuple[Played, ...]
    """Those that the tables stand on."""
    tune: tuple[Played, ...]
    """Those that its setting was chosen by."""

    @property
    def failed(self) -> int:
        """How many have no result."""
        return sum(run.cell.failed is not None for run in (*self.table, *self.tune))


def page(path: Path, home: Path | None = None, *, watched: bool = False) -> str:
    """One self-contained HTML page about a study; it fetches nothing.

    Args:
        path: The folder of the study; without findings, the page tells how far its runs are.
        home: Where the page will lie, if not in that folder: links lead from there.
        watched: Whether `eva report --watch` serves it, so that it asks for its next state.

    Raises:
        RunDirError: The folder is no study, or a file in it is damaged.
    """
    drawn = Charts()
    found: Findings | None = None
    made: Made | None = None
    if (path / "findings.json").is_file():
        found, made = read_findings(path)
    progress = begun(path, found, watched=watched)
    fields: dict[str, object] = {
        "title": f"eva · {found.name if found else progress.name}",
        "name": found.name if found else progress.name,
        "question": found.question if found else progress.question,
        "progress": progress,
        "found": found,
        "made": made,
        "facts": _facts(made),
        **(_fields(path, home or path, found, drawn) if found else {}),
    }
    return sheet("study.html.j2", fields, drawn, watched=watched)


def kept(path: Path) -> list[Path]:
    """The run directories that a study kept whole: those have pages of their own.

    Raises:
        RunDirError: The findings are damaged.
    """
    if not (path / "findings.json").is_file():
        return []
    found, _ = read_findings(path)
    return [path / cell.path for cell in found.cells if _has_own_page(path, cell)]


def setting_words(setting: dict[str, JsonValue]) -> str:
    """A setting in words, e.g. "learner.lr 0.0005, learner.beta 0.3"."""
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in setting.items()
    )


def _has_own_page(path: Path, cell: Cell) -> bool:
    run = path / cell.path
    return is_kept(run) and run.resolve().is_relative_to(path.resolve())


def _fields(path: Path, home: Path, found: Findings, drawn: Charts) -> dict[str, object]:
    """What the template needs of the findings, section by section."""
    lots = [_lot(path, home, found, index) for index in range(len(found.arms))]
    return {
        "index": {arm: index for index, arm in enumerate(found.arms)},
        "groups": _groups(found.rows),
        "parts": list(_parts(found, drawn)),
        "is_unfair": any(sentence.startswith(UNEQUAL) for sentence in found.unequal),
        "tuned": [(arm, [one for one in found.tuned if one.arm == arm]) for arm in found.arms],
        "spent": [(arm, [one for one in found.spent if one.arm == arm]) for arm in found.arms],
        "counts": list(dict.fromkeys(name for one in found.spent for name in one.counts)),
        "counted": COUNTED,
        "outcomes": OUTCOMES,
        "starts": STARTS,
        "lots": lots,
        "linked": any(run.link for lot in lots for run in (*lot.table, *lot.tune)),
        "failed": sum(lot.failed for lot in lots),
        "seeds": len({cell.seed for cell in found.cells if cell.use == "table"}),
        "ran": partial(ran, found),
        "where": told,
        "setting_words": setting_words,
    }


def _groups(rows: Sequence[Row]) -> list[Group]:
    """The rows by place, in the order in which the places are met."""
    groups = []
    for name in dict.fromkeys(told(row.place) for row in rows):
        here = [row for row in rows if told(row.place) == name]
        arms = tuple(row for row in here if row.minus is None)
        groups.append(Group(name, arms, tuple(row for row in here if row.minus is not None)))
    return groups


def _parts(found: Findings, drawn: Charts) -> Iterator[Part]:
    """The sections of figures."""
    asked = pictures_of(found)
    for one in asked:
        if one.kind == "differences":
            specs = ((metric, figures.forest(found, metric)) for metric in one.metrics)
            yield Part(
                id="differences",
                short="Differences",
                title="How far apart they ended",
                say="Differences of runs on the same seeds and levels, with 95 % bootstrap "
                "intervals; an interval that leaves out 0 stands clear of it.",
                figures=tuple(drawn.figure(spec, metric) for metric, spec in specs),
                has_legend=False,
            )
        elif one.factor is not None:
            yield Part(
                id=f"by-{asked.index(one)}",
                short=f"By {one.factor}",
                title=f"By {one.factor}",
                say="Where the arms ended over the amounts, with standard errors.",
                figures=_panels(found, one, drawn),
            )
    curves = [figure for one in asked if one.kind == "curves"
              for figure in _panels(found, one, drawn)]  # fmt: skip
    if curves:
        yield Part(
            id="curves",
            short="Curves",
            title="Over the rounds",
            say="Means over runs; a band is one standard error to each side. Checkpoint 0 is the "
            "policy before any training.",
            figures=tuple(curves),
        )


def _panels(found: Findings, one: Picture, drawn: Charts) -> tuple[Figure, ...]:
    """A figure for each metric in each place."""
    return tuple(
        drawn.figure(
            figures.over_axis(found, one.factor, metric, place)
            if one.factor is not None
            else figures.curves(found, metric, place),
            metric,
            told(place),
        )
        for metric in one.metrics
        for place in one.places
    )


def _facts(made: Made | None) -> list[tuple[str, str]]:
    """How the study was made, as keys and values."""
    if made is None:
        return []
    return [
        ("command", made.command),
        ("finished", made.date),
        ("commit", made.commit or "none: eva is no checkout"),
        ("minutes", f"{made.minutes:.1f} with {made.jobs} side by side"),
        ("minutes of CPU", f"{made.cpu_minutes:.1f}"),
        *sorted(made.versions.items()),
    ]


def _lot(path: Path, home: Path, found: Findings, index: int) -> Lot:
    arm = found.arms[index]
    runs = [_played(path, home, found, cell) for cell in found.cells if cell.arm == arm]
    return Lot(
        arm=arm,
        index=index,
        table=tuple(run for run in runs if run.cell.use == "table"),
        tune=tuple(run for run in runs if run.cell.use == "tune"),
    )


def _played(path: Path, home: Path, found: Findings, cell: Cell) -> Played:
    levels = tuple(cell.place.get(factor, "") for factor in found.factors)
    address = link(path / cell.path, home) if _has_own_page(path, cell) else None
    return Played(cell, levels, setting_words(cell.setting), address)
