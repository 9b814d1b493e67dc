"""Arms side by side: several recipes on the same seeds, each run in a process of its own.

Arms of one seed share X_0, theta_0 and the held-out draws, so their differences are paired.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eva.errors import EvaError, RecipeError
from eva.formulas.statistics import Estimate, estimate, paired_difference
from eva.protocols import Floats


@dataclass(frozen=True)
class Cell:
    """One arm on one seed."""

    arm: str
    """The recipe: a file or a shipped name."""
    seed: int
    """The seed of the run."""
    path: Path
    """Its run directory."""

    @property
    def name(self) -> str:
        """A short name for progress and errors."""
        return f"{self.arm} seed {self.seed}"


def cells(arms: Iterable[str], seeds: Iterable[int], home: Path) -> list[Cell]:
    """All arms on all seeds, seed by seed, with their run directories below `home`.

    Raises:
        RecipeError: Two cells would share a run directory.
    """
    named, drawn = list(arms), list(seeds)
    found = [Cell(arm, seed, home / f"{_short(arm)}-seed{seed}") for seed in drawn for arm in named]
    if len({cell.path for cell in found}) < len(found):
        raise RecipeError(
            f"two arms or seeds share a run directory in {home}: arms {', '.join(named)}, seeds "
            f"{', '.join(map(str, drawn))}; give each arm its own file name and each seed once"
        )
    return found


def _short(arm: str) -> str:
    """An arm without folders and without .yaml."""
    return Path(arm).name.removesuffix(".yaml")


def play(cells: Sequence[Cell], jobs: int, told: Callable[[Cell, int], None]) -> None:
    """Play cells in `jobs` processes of one thread; a finished cell is not played again.

    Args:
        cells: What to play.
        jobs: Processes side by side.
        told: Told each round that a cell has closed.

    Raises:
        EvaError: Cells failed; names each with the reason. The others are played all the same.
    """
    with ThreadPoolExecutor(jobs) as pool:
        failures = [f for f in pool.map(lambda cell: _played(cell, told), cells) if f]
    if failures:
        raise EvaError("; ".join(failures))


def _played(cell: Cell, told: Callable[[Cell, int], None]) -> str | None:
    """Play one cell; the reason if it failed."""
    command = [sys.executable, "-m", "eva", "run", cell.arm, str(cell.path), "--json"]
    alone = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*command, "--set", f"seed={cell.seed}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **alone},
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            t = _closed_round(line)
            if t is not None:
                told(cell, t)
        if process.wait() == 0:
            return None
        errors.seek(0)
        said = errors.read().strip().splitlines()
    return f"{cell.name}: {said[-1] if said else f'ended with code {process.returncode}'}"


def _closed_round(line: str) -> int | None:
    """The round that a line of `eva run --json` closes; None for what a plug-in printed."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    t = found.get("round") if isinstance(found, dict) else None
    return t if isinstance(t, int) else None


def measured(cell: Cell) -> dict[int, dict[str, float]]:
    """The held-out metrics of each checkpoint theta_t of a cell, by t."""
    files = sorted(f for f in (cell.path / "evals").glob("*.json") if f.stem.isdigit())
    return {int(file.stem): json.loads(file.read_bytes()) for file in files}


@dataclass(frozen=True)
class Row:
    """One line of a table: a mean over seeds for each metric."""

    name: str
    """The arm, or "a - b" for a paired difference."""
    values: Mapping[str, Estimate]
    """Mean and standard error by metric."""


def rows(played: Sequence[Cell], metrics: Sequence[str], against: str) -> list[Row]:
    """theta_0, theta_1, each arm at the end, and the paired differences of `against` to the rest.

    theta_1 is shown where all arms of a seed share it.

    Args:
        played: Finished cells.
        metrics: Names of held-out metrics that all of them have, e.g. "hard/sampled/reward".
        against: The arm whose differences to the others are shown.
    """
    arms = list(dict.fromkeys(cell.arm for cell in played))
    curves = {arm: [measured(cell) for cell in played if cell.arm == arm] for arm in arms}
    finals = {arm: [_last(curve) for curve in curves[arm]] for arm in arms}
    found = [Row("theta_0", _means([curve[0] for curve in curves[against]], metrics))]
    firsts = [[curve.get(1) for curve in curves[arm]] for arm in arms]
    shared = firsts[0]
    if all(first == shared for first in firsts) and None not in shared:
        found.append(Row("theta_1", _means([first for first in shared if first], metrics)))
    found += [Row(_short(arm), _means(finals[arm], metrics)) for arm in arms]
    for arm in arms:
        if arm != against:
            pairs = {m: (_column(finals[against], m), _column(finals[arm], m)) for m in metrics}
            values = {m: paired_difference(a, b) for m, (a, b) in pairs.items()}
            found.append(Row(f"{_short(against)} - {_short(arm)}", values))
    return found


def common_metrics(played: Sequence[Cell]) -> list[str]:
    """The held-out metrics that the last checkpoint of every cell has, sorted."""
    return sorted(set.intersection(*(set(_last(measured(cell))) for cell in played)))


def _last(by_round: Mapping[int, dict[str, float]]) -> dict[str, float]:
    return by_round[max(by_round)]


def _means(finals: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Estimate]:
    return {metric: estimate(_column(finals, metric)) for metric in metrics}


def _column(finals: Sequence[Mapping[str, float]], metric: str) -> Floats:
    return np.array([final[metric] for final in finals])


def markdown(found: Sequence[Row], metrics: Sequence[str]) -> Iterator[str]:
    """The lines of a Markdown table; a standard error needs at least two seeds."""
    yield "| arm | " + " | ".join(metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    for row in found:
        yield f"| {row.name} | " + " | ".join(shown(row.values[m]) for m in metrics) + " |"


def shown(value: Estimate) -> str:
    """A mean with its standard error, three digits."""
    return f"{value.mean:.3f}" + ("" if np.isnan(value.error) else f" ± {value.error:.3f}")
