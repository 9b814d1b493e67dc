"""Writes small plausible study directories: findings by hand, and runs that were kept or pruned."""

import random
import shutil
from pathlib import Path

import yaml

from eva.findings import (
    UNEQUAL,
    Cell,
    Findings,
    Line,
    Made,
    Measured,
    Place,
    Row,
    Spent,
    Tuned,
    Verdict,
)
from tests.report.fake_runs import write_json, write_run

ARMS = ("static", "new", "eva")
METRICS = ("hard/sampled/reward", "x0/sampled/reward")
CURVES = ("hard/sampled/reward", "round/words")
SEEDS = (4, 5, 6, 7, 8)
PLACES: tuple[Place, ...] = tuple(
    {"reward": reward, "size": size} for reward in ("graded", "binary") for size in ("64", "256")
)
GRID = ({"learner.lr": 2e-4}, {"learner.lr": 5e-4})
MADE = Made(
    command="eva study studies/fake.yaml --jobs 4",
    date="2026-03-01",
    commit="0123456789abcdef",
    versions={"numpy": "2.4.6", "torch": "2.11.0"},
    minutes=41.5,
    cpu_minutes=160.0,
    jobs=4,
)


def measured(mean: float, runs: int = 5, missing: int = 0) -> Measured:
    if runs == 1:
        return Measured(mean=mean, error=None, low=None, high=None, runs=1, missing=missing)
    return Measured(
        mean=mean, error=0.008, low=mean - 0.015, high=mean + 0.016, runs=runs, missing=missing
    )


def findings(name: str = "fake", question: str = "Is eva better?", **fields: object) -> Findings:
    """What a study of three arms in four places may find, with a run that failed."""
    found = Findings(
        name=name,
        question=question,
        arms=ARMS,
        factors={"reward": ("graded", "binary"), "size": ("64", "256")},
        pooled=(),
        axes=("size",),
        metrics=METRICS,
        rows=tuple(row for place in PLACES for row in _rows(place)),
        spent=tuple(
            Spent(place=place, arm=arm, counts={"prompts": 512.0, "tokens": 40000.0 + 900 * k})
            for place in PLACES
            for k, arm in enumerate(ARMS)
        ),
        unequal=(
            f"{UNEQUAL}eva answers 1.2 times as many prompts as static (614 and 512).",
            "static generates 1.1 times as many tokens as eva.",
        ),
        verdicts=tuple(_verdict(place) for place in PLACES[::2]),
        unjudged=("eva > ghost on hard/sampled/reward: no pair of runs can speak of it.",),
        lines=tuple(
            Line(place=place, arm=arm, metric=metric, points=_points(k, n))
            for n, place in enumerate(PLACES)
            for metric in CURVES
            for k, arm in enumerate(ARMS)
        ),
        tuned=tuple(
            Tuned(place={}, arm=arm, setting=dict(setting), value=measured(0.4 + 0.01 * k, 3),
                  is_chosen=k == 1)
            for arm in ARMS
            for k, setting in enumerate(GRID)
        ),
        tuned_by="hard/sampled/reward",
        cells=tuple(_cells()),
    )  # fmt: skip
    return found.model_copy(update=fields)


def _rows(place: Place) -> list[Row]:
    up = 0.1 * (place["reward"] == "graded") + 0.02 * (place["size"] == "256")
    ends = {"theta_0": 0.40, "static": 0.44, "new": 0.45, "eva": 0.48}
    rows = []
    for arm, base in ends.items():
        missing = int(arm == "new" and place["reward"] == "binary")
        values = {
            "hard/sampled/reward": measured(base + up, 5 - missing, missing),
            "x0/sampled/reward": measured(0.9 - base / 4, 5 - missing, missing),
        }
        rows.append(Row(place=place, arm=arm, values=values, leads=METRICS[: arm == "eva"]))
    for arm in ("static", "new"):
        gaps = {"hard/sampled/reward": measured(0.48 - ends[arm]),
                "x0/sampled/reward": measured(-0.006)}  # fmt: skip
        rows.append(Row(place=place, arm="eva", minus=arm, values=gaps))
    return rows


def _verdict(place: Place) -> Verdict:
    holds = place["reward"] == "graded"
    outcome = "holds" if holds else "not resolved"
    words = "reward graded, size 64" if holds else "reward binary, size 64"
    return Verdict(
        place=place,
        better="eva",
        than="new",
        on=METRICS[0],
        by=0.0,
        difference=measured(0.03 if holds else 0.004),
        p=0.001 if holds else 0.4,
        corrected=0.002 if holds else 0.8,
        outcome=outcome,
        sentence=f"eva > new on {METRICS[0]} with {words}: {outcome}; +0.030 (+0.015 to +0.046).",
    )


def _points(arm: int, place: int) -> dict[int, Measured]:
    rng = random.Random(f"{arm} {place}")
    return {t: measured(0.4 + (0.005 + 0.01 * arm) * t + rng.gauss(0, 0.006)) for t in range(7)}


def _cells() -> list[Cell]:
    cells = [
        Cell(place={"reward": "graded", "size": "64"}, arm=arm, setting=dict(setting), seed=seed,
             use="tune", path=f"cells/{arm}--graded--64/lr={setting['learner.lr']}/seed{seed}")
        for seed in (1, 2, 3) for setting in GRID for arm in ARMS
    ]  # fmt: skip
    for seed in SEEDS:
        for place in PLACES:
            for arm in ARMS:
                path = f"cells/{arm}--{'--'.join(place.values())}/lr=0.0005/seed{seed}"
                failed = "its process was killed by SIGKILL; <b>its log</b> has what it printed"
                broken = (arm, place["reward"], place["size"], seed) == ("new", "binary", "64", 5)
                cells.append(
                    Cell(place=place, arm=arm, setting={"learner.lr": 5e-4}, seed=seed,
                         use="table", path=path, failed=failed if broken else None)
                )  # fmt: skip
    return cells


def write_findings(path: Path, found: Findings, made: Made | None = MADE) -> Path:
    """Write what a study leaves at its end, without its runs."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "findings.json").write_text(found.model_dump_json(indent=1))
    if made is not None:
        (path / "made.json").write_text(made.model_dump_json(indent=1))
    return path


def write_study(path: Path, found: Findings | None = None) -> Path:
    """Write a study that is done: a run of each arm at the first place is whole."""
    found = found or findings()
    write_findings(path, found)
    write_plan(path)
    for cell in found.cells:
        if cell.seed == 4 and cell.place == PLACES[0]:
            write_cell(path / cell.path, cell.arm)
    return path


def write_plan(path: Path) -> Path:
    """Write the plan: 18 runs for tuning, 60 for the table."""
    path.mkdir(parents=True, exist_ok=True)
    plan = {
        "name": "fake",
        "question": "Is eva better?",
        "factors": {"reward": {"graded": {}, "binary": {}}, "size": {"64": {}, "256": {}}},
        "arms": {arm: {} for arm in ARMS},
        "tune": {"seeds": [1, 2, 3], "grid": [dict(one) for one in GRID], "over": []},
        "seeds": list(SEEDS),
    }
    (path / "study.yaml").write_text(yaml.safe_dump(plan))
    return path


def write_cell(path: Path, arm: str, *, pruned: bool = False) -> Path:
    """Write the run directory of a cell that is done."""
    write_run(path, arm, rounds=2, prompts=8)
    write_json(path / "result.json", {})
    if pruned:
        for file in path.glob("rounds/*/*"):
            if file.name != "metrics.json":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
    return path
