"""Snapshots inside an update: weights, optimiser and log, from which a killed update goes on.

A snapshot is written beside its place and renamed, and the one before it is removed only then.
accelerate writes the weights, so what is sharded over processes is saved in shards; weights that
are frozen are left out, but for those of a sharded model. Whatever another update left in the
folder (`update.json` says which one) is removed first.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from eva.learn.solver import Solver
from eva.store import settle, write_json, write_whole

Log = list[dict[str, float]]
OURS = (
    "checkpoint*",
    "adapter",
    "last_good",
    "snapshot*",
    "reference.npy",
    "optimizer.pt",
    "log.jsonl",
    "pairs.json",
)
"""What an update leaves in its folder; anything else there is left alone."""


@dataclass(frozen=True)
class Progress:
    """How far an update is."""

    step: int
    """Steps made."""
    log: Log
    """Their rows."""
    notes: str | None = None
    """What the caller keeps with the weights."""


def begun(accelerator: Accelerator, out: Path, update: str) -> None:
    """Make `out` the folder of one update: what another one left there is removed."""
    if accelerator.is_main_process:  # pragma: no branch - the others wait
        out.mkdir(parents=True, exist_ok=True)
        named = out / "update.json"
        if not named.exists() or json.loads(named.read_bytes()) != update:
            for path in (path for name in OURS for path in out.glob(name)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_json(named, update)
    accelerator.wait_for_everyone()


def keep(solver: Solver, out: Path, progress: Progress) -> None:
    """Write a snapshot below `out`; all processes call it."""
    accelerator = solver.accelerator
    part = out / "snapshot.part"
    if accelerator.is_main_process:  # pragma: no branch - the others wait
        shutil.rmtree(part, ignore_errors=True)
    accelerator.wait_for_everyone()
    hook = accelerator.register_save_state_pre_hook(_leave_out_frozen)
    accelerator.save_state(str(part), safe_serialization=False)
    hook.remove()
    # The others may still write their part.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:  # pragma: no branch - the others wait
        write_whole(part / "progress.json", [json.dumps(vars(progress)).encode()])
        settle(part)
        old = _snapshots(out)
        part.rename(out / f"snapshot-{progress.step:08d}")
        for folder in old:
            shutil.rmtree(folder)
    accelerator.wait_for_everyone()


def resumed(solver: Solver, out: Path) -> Progress:
    """Load the last snapshot, if there is one; how far it is."""
    found = _snapshots(out)
    if not found:
        return Progress(0, [])
    solver.accelerator.load_state(str(found[-1]), strict=not _frozen(solver.scorer))
    return Progress(**json.loads((found[-1] / "progress.json").read_bytes()))


def cleared(solver: Solver, out: Path) -> None:
    """Remove all snapshots: the update is finished."""
    if solver.accelerator.is_main_process:  # pragma: no branch - the others wait
        for folder in [*_snapshots(out), out / "snapshot.part"]:
            shutil.rmtree(folder, ignore_errors=True)
    solver.accelerator.wait_for_everyone()


def _leave_out_frozen(
    models: Sequence[nn.Module], states: Sequence[dict[str, Tensor]], folder: str
) -> None:
    """Drop from the states what no step moves; accelerate calls it before it writes."""
    for model, state in zip(models, states, strict=False):  # sharded models have no states here
        for name in _frozen(model):
            del state[name]


def _frozen(model: nn.Module) -> list[str]:
    """The names of the weights that no step moves; tied ones have two."""
    named = model.named_parameters(remove_duplicate=False)
    return [name for name, weight in named if not weight.requires_grad]


def _snapshots(out: Path) -> list[Path]:
    return sorted(path for path in out.glob("snapshot-*") if path.is_dir())
