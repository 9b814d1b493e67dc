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

from eva.errors import EvaError
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
    """All arms on all seeds, seed by seed, with their run directories below `home`."""
    named = list(arms)
    return [
        Cell(arm, seed, home / f"{Path(arm).stem}-seed{seed}") for seed in seeds for arm in named
    ]


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
            told(cell, int(json.loads(line)["round"]))
        if process.wait() == 0:
            return None
        errors.seek(0)
        said = errors.read().strip().splitlines()
    return f"{cell.name}: {said[-1] if said else f'ended with code {process.returncode}'}"


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

    Args:
        played: Finished cells.
        metrics: Names of held-out metrics, e.g. "hard/sampled/reward".
        against: The arm whose differences to the others are shown.
    """
    arms = list(dict.fromkeys(cell.arm for cell in played))
    finals = {arm: [_last(measured(cell)) for cell in played if cell.arm == arm] for arm in arms}
    starts = [measured(cell) for cell in played if cell.arm == against]
    found = [
        Row("theta_0", _means([start[0] for start in starts], metrics)),
        Row("theta_1", _means([start[1] for start in starts], metrics)),
        *(Row(arm, _means(finals[arm], metrics)) for arm in arms),
    ]
    for arm in arms:
        if arm != against:
            pairs = {m: (_column(finals[against], m), _column(finals[arm], m)) for m in metrics}
            values = {m: paired_difference(a, b) for m, (a, b) in pairs.items()}
            found.append(Row(f"{against} - {arm}", values))
    return found


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
        yield f"| {row.name} | " + " | ".join(_shown(row.values[m]) for m in metrics) + " |"


def _shown(value: Estimate) -> str:
    return f"{value.mean:.3f}" + ("" if np.isnan(value.error) else f" ± {value.error:.3f}")
