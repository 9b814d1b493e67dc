"""What a cell of a study leaves behind when it is done: `result.json` in its run directory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from pydantic import FiniteFloat, JsonValue, TypeAdapter, ValidationError

from eva.contracts import plug_in
from eva.errors import PlugInError, RunDirError
from eva.records import Record
from eva.store import write_whole

Metrics = dict[int, dict[str, float]]
"""By t, by the name of the metric."""
Probe = Callable[[Path], object]
"""A function of the user's own: from a run directory to its `Metrics`."""

BY_T = TypeAdapter(dict[int, dict[str, FiniteFloat]])
COUNTED = {"prompts": "prompts", "samples": "samples", "tokens": "tokens",
           "evolver_calls": "written"}  # fmt: skip
"""What was spent, and the metric of a round that counts it."""
KEPT = frozenset({"recipe.yaml", "run.json", "result.json", "rounds", "evals", "logs"})
"""What a pruned run directory still has."""


class _Facts(TypedDict):
    commit: str | None
    inputs: dict[str, JsonValue] | None


class Result(Record):
    """The numbers of one finished run."""

    evals: Metrics
    """Held-out metrics of theta_t."""
    rounds: Metrics
    """Metrics of round t, those of the probe among them."""
    spent: dict[str, float]
    """prompts, samples, tokens, steps and evolver_calls of the whole run: prompts answered to train
    on and their responses, optimiser steps, prompts that the evolver wrote, refused ones included;
    steps are absent where the learner keeps no log of them."""
    cpu_seconds: float
    """CPU time of the process that played it."""
    wall_seconds: float
    """Wall time, of the last attempt."""
    is_whole: bool | None = None
    """Whether its run directory is kept whole; None in results of before this was written."""
    commit: str | None = None
    """The commit of eva that began it; None where eva is no checkout."""
    inputs: dict[str, JsonValue] | None = None
    """What it read from outside, as digests (`eva.build.inputs`)."""


def read_result(path: Path, cpu_seconds: float, wall_seconds: float, probe: Probe | None) -> Result:
    """The numbers of a finished run, from its directory.

    Args:
        path: The run directory, not pruned yet.
        cpu_seconds: CPU time of the process that played it.
        wall_seconds: Its wall time.
        probe: Measures more of it; see `eva.study.plan.Study.probe`.

    Raises:
        PlugInError: The probe raised, returned something else, or named a metric that is there.
    """
    rounds = {int(f.parent.name): _floats(f) for f in sorted(path.glob("rounds/*/metrics.json"))}
    spent = {name: sum(m[of] for m in rounds.values()) for name, of in COUNTED.items()}
    logs = sorted(path.glob("rounds/*/learn/log.jsonl"))
    spent |= {"steps": float(sum(log.read_bytes().count(b"\n") for log in logs))} if logs else {}
    return Result(
        evals={int(f.stem): _floats(f) for f in sorted(path.glob("evals/*.json"))},
        rounds=_joined(rounds, probe, path) if probe else rounds,
        spent=spent,
        cpu_seconds=cpu_seconds,
        wall_seconds=wall_seconds,
        **_facts(path),
    )


def known_result(path: Path) -> Result | None:
    """The numbers that a run directory has; None while its run has not ended.

    Raises:
        RunDirError: The file is damaged.
    """
    file = path / "result.json"
    if not file.exists():
        return None
    try:
        found = Result.model_validate_json(file.read_bytes())
        return found if found.inputs else found.model_copy(update=_facts(path))
    except (ValueError, OSError) as error:
        raise RunDirError(f"{file} is damaged; delete the folder {path}, and it is played "
                          "again") from error  # fmt: skip


def keep_result(path: Path, result: Result) -> None:
    """Write the numbers of a run, which marks it as done."""
    write_whole(path / "result.json", [result.model_dump_json(indent=1).encode(), b"\n"])


def prune(path: Path) -> None:
    """Leave of a finished run its recipe, metrics and logs; what a kill left, the next call takes.

    The metrics of rounds and of checkpoints stay as files; prompts, responses and weights go.
    """
    gone = [entry for entry in path.iterdir() if entry.name not in KEPT]
    gone += [file for file in path.glob("rounds/*/*") if file.name != "metrics.json"]
    gone += [entry for entry in path.glob("evals/*") if entry.is_dir()]
    for entry in gone:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _joined(rounds: Metrics, probe: Probe, path: Path) -> Metrics:
    """The metrics of the rounds with what the probe measured."""
    with plug_in("probe"):
        found = probe(path)
    try:
        measured = BY_T.validate_python(found)
    except ValidationError as error:
        raise PlugInError(
            f"the probe returned {found!r:.120}; expected finite numbers by name by round, such as "
            "{0: {'length': 5.0}}; what cannot be measured is left out"
        ) from error
    for t, metrics in measured.items():
        if both := sorted(metrics.keys() & rounds.get(t, {}).keys()):
            raise PlugInError(f"the probe measures {both[0]!r}, which a round has; rename it")
    return {t: {**rounds.get(t, {}), **measured.get(t, {})} for t in sorted({*rounds, *measured})}


def _facts(path: Path) -> _Facts:
    """What `run.json` says of the commit and the inputs of a run."""
    file = path / "run.json"
    found = json.loads(file.read_bytes()) if file.exists() else {}
    return {"commit": found.get("commit"), "inputs": found.get("inputs")}


def _floats(file: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(file.read_bytes())
    return found
