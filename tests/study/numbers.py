"""Studies whose runs were never played: every number of every run is written by hand."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from eva.config import Recipe
from eva.recipe import load
from eva.study.plan import Played, Study, checked_study
from eva.study.results import Result

HARD = "hard/sampled/reward"
X0 = "x0/sampled/reward"


def asked(**keys: object) -> Study:
    """A study of the arms new and eva on seeds 1 to 3."""
    fields: dict[str, object] = {
        "name": "hand",
        "question": "Is it?",
        "base": "toy",
        "arms": {"new": {}, "eva": {}},
        "seeds": [1, 2, 3],
        "against": "eva",
        "metrics": [HARD],
    }
    return checked_study(fields | keys, "hand")


def result(
    end: Mapping[str, float],
    *,
    start: Mapping[str, float] | None = None,
    rounds: Mapping[int, dict[str, float]] | None = None,
    spent: Mapping[str, float] | None = None,
) -> Result:
    """What a run of four rounds measured at its end, and at its start."""
    evals = {4: dict(end)} | ({} if start is None else {0: dict(start)})
    return Result(
        evals=evals,
        rounds=dict(rounds or {}),
        spent=dict(spent or {}),
        cpu_seconds=1.0,
        wall_seconds=1.0,
    )


def run(arm: str, seed: int, found: Result | None, **keys: object) -> Played:
    """A run of an arm; it failed if nothing was found."""
    fields: dict[str, object] = {"place": {}, "setting": {}, "use": "table"} | keys
    place = fields["place"]
    assert isinstance(place, dict)
    name = "--".join((arm, *place.values()))
    return Played(
        arm=arm,
        seed=seed,
        path=Path(f"/runs/hand/cells/{name}/as-is/seed{seed}"),
        recipe=_toy(),
        result=found,
        failed=None if found else "it broke",
        **fields,  # type: ignore[arg-type]
    )


def column(arm: str, ends: Sequence[float | None], **keys: object) -> list[Played]:
    """Runs of an arm on seeds 1, 2, ... by where they end on the hard set; None failed."""
    return [
        run(arm, seed, None if end is None else result({HARD: end}), **keys)
        for seed, end in enumerate(ends, 1)
    ]


@cache
def _toy() -> Recipe:
    return load("toy")
