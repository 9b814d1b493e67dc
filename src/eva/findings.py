"""What a study found: the records that `eva study` writes and a report reads.

One file, `findings.json`, holds all of it. It is a function of the runs alone: a study that was
killed and run again finds the same, byte for byte. What depends on the machine (minutes, commit,
host) stands beside it in `made.json`.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, JsonValue, ValidationError

from eva.errors import RunDirError
from eva.records import Record

Place: TypeAlias = dict[str, str]
"""A level of each factor that a number speaks of, e.g. {"reward": "binary"}; a factor that is left
out is pooled: runs of one seed are averaged over its levels first."""
MINUS = "\u2212"
"""A true minus sign."""
UNEQUAL = "Not at equal budget: "
"""How a sentence begins that speaks of what arms should spend the same of."""
Outcome: TypeAlias = Literal["holds", "does not hold", "not resolved"]


class Measured(Record):
    """A mean over seeds: of runs, or of differences of pairs of runs.

    Runs of one seed that differ by a pooled level are not independent, for they share much of what
    is drawn; so they are averaged first, and a seed counts once.
    """

    mean: float
    """In the unit of the metric."""
    error: float | None
    """Standard error of the mean; None for one seed."""
    low: float | None
    """Low end of the 95 % bootstrap interval, over seeds; None for one seed."""
    high: float | None
    """Its high end."""
    runs: int = Field(ge=1)
    """Seeds, or pairs of runs; each seed is a mean over the pooled levels that it has."""
    missing: int = Field(default=0, ge=0)
    """How many more were planned: their runs failed, or did not measure this."""
    partial: int = Field(default=0, ge=0)
    """Those of `runs` that are means over some of the pooled levels only."""


class Row(Record):
    """An arm at the end of its runs, or how much it ends above another."""

    place: Place
    """What it speaks of."""
    arm: str
    """The arm; "theta_0" for what all begin with, "theta_1" where they share the first round."""
    minus: str | None = None
    """The arm that is subtracted, run by run on the same seed; None for the arm itself."""
    values: dict[str, Measured]
    """By metric; one that was never measured is absent."""
    leads: tuple[str, ...] = ()
    """The metrics in which this arm ends above each other one of its place, beyond noise: paired
    t-tests over seeds, p < 0.05 after Holm's correction for the other arms."""


class Spent(Record):
    """What one run of an arm used; the mean over its runs."""

    place: Place
    """What it speaks of."""
    arm: str
    """The arm."""
    counts: dict[str, float]
    """By what is counted: prompts, samples, tokens, steps, evolver_calls."""


class Line(Record):
    """A metric over rounds."""

    place: Place
    """What it speaks of."""
    arm: str
    """The arm."""
    metric: str
    """A held-out metric of theta_t, or "round/..." for one of round t."""
    points: dict[int, Measured]
    """By t."""


class Tuned(Record):
    """A setting of an arm, tried on the tuning seeds."""

    place: Place
    """Where it was tuned."""
    arm: str
    """The arm."""
    setting: dict[str, JsonValue]
    """Dotted keys of the recipe and their values."""
    value: Measured
    """What the choice is made by."""
    is_chosen: bool
    """Whether the table uses it."""


class Verdict(Record):
    """A claim that was written down before, and what became of it."""

    place: Place
    """Where it is judged."""
    better: str
    """The arm that is claimed to be better ..."""
    than: str
    """... than this one ..."""
    on: str
    """... on this metric ..."""
    by: float
    """... by more than this."""
    difference: Measured
    """better - than, run by run."""
    p: float | None
    """Two-sided p of a t-test over seeds that the difference is `by`; None for one pair, and where
    all pairs differ by the same, for then nothing tells what chance does."""
    corrected: float | None
    """p after Holm's correction for all claims that were made, in all of their places; one without
    a p counts as p = 1."""
    outcome: Outcome
    """"holds" or "does not hold" where corrected < 0.05, by the side; else "not resolved"."""
    sentence: str
    """All of it in one sentence."""


class Cell(Record):
    """One run of the study."""

    place: Place
    """The level of every factor."""
    arm: str
    """The arm."""
    setting: dict[str, JsonValue]
    """The tuned keys; empty without a grid."""
    seed: int
    """Its seed."""
    use: Literal["tune", "table"]
    """What it is for."""
    path: str
    """Its run directory, relative to the study's; pruned ones hold metrics alone."""
    failed: str | None = None
    """Why it has no result."""


class Findings(Record):
    """All that a study found."""

    name: str
    """The study."""
    question: str
    """What it asks."""
    arms: tuple[str, ...]
    """In the order of the study."""
    factors: dict[str, tuple[str, ...]]
    """The levels of each factor."""
    pooled: tuple[str, ...]
    """The factors that tables and claims average over."""
    axes: tuple[str, ...]
    """The factors whose levels are amounts: a figure has them as its horizontal axis."""
    metrics: tuple[str, ...]
    """What is tabled."""
    rows: tuple[Row, ...]
    """The tables."""
    spent: tuple[Spent, ...]
    """The budgets."""
    unequal: tuple[str, ...]
    """A sentence for each thing of which the arms did not spend the same, or are not known to.
    Those that begin with `UNEQUAL` come first: of prompts, samples and steps arms should spend the
    same."""
    equal: tuple[str, ...] = ()
    """Of prompts, samples and steps those of which every run of every arm was found to spend the
    same as each other arm's on its levels and seed."""
    verdicts: tuple[Verdict, ...]
    """The claims."""
    unjudged: tuple[str, ...] = ()
    """A sentence for each claim of which not one pair of runs can speak."""
    lines: tuple[Line, ...]
    """The curves."""
    tuned: tuple[Tuned, ...]
    """The grids."""
    tuned_by: str | None = None
    """The metric that settings are chosen by; None without a grid."""
    tuned_within: float = 0.0
    """Standard errors within which settings count as equal."""
    cells: tuple[Cell, ...]
    """The runs."""

    @property
    def choice(self) -> str:
        """By what a setting was chosen, in words."""
        best = f"the greatest mean of {self.tuned_by}"
        if not self.tuned_within:
            return best
        is_one = self.tuned_within == 1
        errors = "one standard error" if is_one else f"{self.tuned_within:g} standard errors"
        return f"the first within {errors} of {best}"


class Made(Record):
    """Where and how a study was made; no part of what it found."""

    command: str
    """What remakes it."""
    date: str
    """When it was finished."""
    commit: str | None
    """The commit of eva; None where eva is no checkout."""
    versions: dict[str, str]
    """Packages that may move results."""
    minutes: float
    """Wall time, all attempts added up."""
    cpu_minutes: float
    """CPU time of its runs."""
    jobs: int
    """Processes side by side, in the last attempt."""


def read_findings(path: Path) -> tuple[Findings, Made | None]:
    """What a finished study found, from its folder.

    Raises:
        RunDirError: The folder holds no findings, or they are damaged.
    """
    file, beside = path / "findings.json", path / "made.json"
    if not file.is_file():
        raise RunDirError(f"{path} holds no findings.json; name a folder that eva study finished")
    try:
        made = Made.model_validate_json(beside.read_bytes()) if beside.is_file() else None
        return Findings.model_validate_json(file.read_bytes()), made
    except (ValidationError, OSError) as error:
        raise RunDirError(f"{file} or made.json beside it is damaged: {error}") from error


class Picture(Record):
    """A figure of a study: a panel for each of its metrics in each of its places."""

    file: str
    """The name of its file beside the results page."""
    kind: Literal["differences", "axis", "curves"]
    """Differences of arms with their intervals, ends over the levels of a factor, or rounds."""
    metrics: tuple[str, ...]
    """What is drawn."""
    places: tuple[Place, ...]
    """Where; for an axis, without its factor; for differences {}, for their names say where."""
    factor: str | None = None
    """The horizontal axis of kind "axis"."""


def places(findings: Findings, without: str | None = None) -> list[Place]:
    """Where the study has a table: every level of what is not pooled, in its order.

    Args:
        findings: What was found.
        without: A factor that is left out, e.g. the axis of a figure.
    """
    found: list[Place] = []
    for row in findings.rows:
        place = {name: level for name, level in row.place.items() if name != without}
        if place not in found:
            found.append(place)
    return found


def told(place: Place) -> str:
    """A place in words, e.g. "reward binary, size 64"; empty where nothing is named."""
    return ", ".join(f"{name} {level}" for name, level in place.items())


def listed(words: Sequence[str]) -> str:
    """Words in a row: "a, b and c"."""
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def decimal(value: float, places: int = 3) -> str:
    """A number with as many decimals and a true minus sign; of what is great, none.

    Examples:
        >>> decimal(0.0344), decimal(-0.00034, 5), decimal(-0.0001), decimal(12345.6)
        ('0.034', '\u22120.00034', '0.000', '12,346')
    """
    digits = f"{abs(value):,.0f}" if abs(value) >= 1000 else f"{abs(value):.{places}f}"
    return MINUS + digits if value < 0 and digits.strip("0.") else digits


def decimals(found: Measured, by: float = 0.0) -> int:
    """How many decimals tell a mean from `by`: three, or two digits of a smaller distance.

    No more than the error lets one know of it.
    """
    size = max(abs(found.mean - by), found.error or 0.0)
    return 3 if size >= 0.001 or size < 1e-12 else 1 - math.floor(math.log10(size))


def mean_told(found: Measured) -> str:
    """A mean with its standard error, e.g. "0.520 ± 0.004"."""
    places = decimals(found)
    error = "" if found.error is None else f" ± {decimal(found.error, places)}"
    return decimal(found.mean, places) + error


def counted(found: Measured, pooled: int = 1) -> str:
    """What a mean stands on: "10", "9 of 10", or "5 seeds x 3" where levels are pooled.

    Args:
        found: The mean.
        pooled: Over how many levels a seed is averaged; see `pooled_levels`.
    """
    planned = found.runs + found.missing
    said = f"{found.runs} of {planned}" if found.missing else str(planned)
    if pooled == 1:
        return said
    said += f"{' seeds' if planned > 1 else ''} x {pooled}"
    return said + (f" ({found.partial} in part)" if found.partial else "")


def ran(findings: Findings, row: Row) -> str:
    """What a row stands on, as `counted` tells it; of metrics that differ in it, each."""
    pooled = pooled_levels(findings)
    return ", ".join(dict.fromkeys(counted(one, pooled) for one in row.values.values())) or "0"


def pooled_levels(findings: Findings) -> int:
    """Over how many levels each seed of a table is averaged; 1 if no factor is pooled."""
    return math.prod(
        len(levels) for name, levels in findings.factors.items() if name in findings.pooled
    )


def pictures_of(findings: Findings) -> list[Picture]:
    """The figures that the findings give rise to: the page links them, the report draws them.

    Curves of one place are one figure; of several places, one figure for each metric, in which
    the places can be compared.
    """
    found = []
    whole = tuple(places(findings))
    if any(row.minus and row.values for row in findings.rows):
        found.append(_picture(findings, "differences", findings.metrics, ({},)))
    for factor in findings.axes:
        rest = tuple(places(findings, without=factor))
        found.append(_picture(findings, "axis", findings.metrics, rest, factor))
    drawn = tuple(dict.fromkeys(line.metric for line in findings.lines if len(line.points) > 1))
    if len(whole) == 1 and drawn:
        found.append(_picture(findings, "curves", drawn, whole))
    elif drawn:
        found += [_picture(findings, "curves", (metric,), whole) for metric in drawn]
    return _apart(found)


def _picture(
    findings: Findings,
    kind: Literal["differences", "axis", "curves"],
    metrics: tuple[str, ...],
    where: tuple[Place, ...],
    factor: str | None = None,
) -> Picture:
    """A figure and the name of its file."""
    told = [findings.name, {"axis": "by"}.get(kind, kind)]
    told += [factor] if factor else []
    told += list(metrics) if kind == "curves" and len(where) > 1 else []
    file = re.sub(r"[^\w.-]+", "-", "-".join(told)) + ".svg"
    return Picture(file=file, kind=kind, metrics=metrics, places=where, factor=factor)


def _apart(pictures: Sequence[Picture]) -> list[Picture]:
    """Each with a file of its own, also where letters of either case are the same."""
    found: dict[str, Picture] = {}
    for one in pictures:
        stem, number = one.file.removesuffix(".svg"), 1
        file = one.file
        while file.lower() in found:
            number += 1
            file = f"{stem}-{number}.svg"
        found[file.lower()] = one.model_copy(update={"file": file})
    return list(found.values())
