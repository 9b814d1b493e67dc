"""Snapshots inside an update, in one process; tests/learn/test_processes.py kills several."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from eva.learn import snapshots, trainer
from eva.learn.snapshots import Progress
from eva.learn.solver import Solver
from eva.parts.learners import OwnOffline
from eva.records import Checkpoint, Rollout
from tests.learn.runs import SEED, MakeConfig, MakeStart, file_bytes

LORA = {"rank": 4, "dropout": 0.1}


class Stopped(Exception):
    """What ends an update from outside."""


def update(
    start: Checkpoint, lessons: Sequence[Rollout], config: OwnOffline, out: Path
) -> Checkpoint:
    out.mkdir(exist_ok=True)
    return trainer.make_learner(config)(start, lessons, out=out, seed=SEED)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stop when the snapshot after a step is written."""
    keep = snapshots.keep

    def then_stop(solver: Solver, out: Path, progress: Progress) -> None:
        keep(solver, out, progress)
        if progress.step == step:
            raise Stopped

    monkeypatch.setattr(snapshots, "keep", then_stop)


def stopped_update(
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    start: Checkpoint,
    lessons: Sequence[Rollout],
    config: OwnOffline,
    out: Path,
) -> None:
    """An update that is stopped after so many steps."""
    with monkeypatch.context() as patched:
        stop_after(patched, steps)
        with pytest.raises(Stopped):
            update(start, lessons, config, out)


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("gpt2", {}),  # tied embeddings
        ("llama", {"optimizer": "rmsprop", "save_steps": 2}),
        ("gpt2", {"lora": LORA}),
        ("llama", {"lora": LORA | {"merge": True}}),
    ],
)
def test_an_update_that_was_stopped_goes_on_to_the_same_bytes(
    make_start: MakeStart,
    make_config: MakeConfig,
    lessons: list[Rollout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    choices: dict[str, object],
) -> None:
    config = make_config(**({"steps": 5, "save_steps": 1} | choices))
    start = make_start(kind, dropout=0.1 if kind == "gpt2" else 0.0)
    whole = update(start, lessons, config, tmp_path / "whole")
    out = tmp_path / "stopped"
    stopped_update(monkeypatch, 2, start, lessons, config, out)
    assert [path.name for path in out.glob("snapshot*")] == ["snapshot-00000002"]
    # What is half written when a process dies is never read.
    shutil.copytree(out / "snapshot-00000002", out / "snapshot.part")
    (out / "snapshot.part" / "progress.json").write_text('{"step": 3')
    assert update(start, lessons, config, out).id == whole.id
    assert file_bytes(out) == file_bytes(tmp_path / "whole")


def test_it_goes_on_where_it_stopped_and_not_from_the_start(
    make_start: MakeStart,
    make_config: MakeConfig,
    lessons: list[Rollout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, config, out = make_start(), make_config(steps=4, save_steps=1), tmp_path / "out"
    stopped_update(monkeypatch, 3, start, lessons, config, out)
    made: list[float] = []
    stepped = trainer.stepped

    def counted(*given: object, lr: float, **named: object) -> dict[str, float]:
        made.append(lr)
        return stepped(*given, lr=lr, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "stepped", counted)
    update(start, lessons, config, out)
    assert len(made) == 1


def test_a_snapshot_of_an_adapter_leaves_out_what_is_frozen(
    make_start: MakeStart,
    make_config: MakeConfig,
    lessons: list[Rollout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, out = make_config(save_steps=1, lora=LORA), tmp_path / "out"
    stop_after(monkeypatch, 1)
    with pytest.raises(Stopped):
        update(make_start("gpt2"), lessons, config, out)
    state = torch.load(out / "snapshot-00000001" / "pytorch_model.bin")
    # Four linear layers in each of two blocks, two matrices each; the frozen head, tied to the
    # embeddings, goes with them.
    assert len(state) == 16
    assert all(".lora_" in name for name in state)


def test_the_snapshots_of_another_update_are_removed(
    make_start: MakeStart,
    make_config: MakeConfig,
    lessons: list[Rollout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, out = make_start(), tmp_path / "out"
    stopped_update(monkeypatch, 1, start, lessons, make_config(save_steps=1), out)
    other = make_config(save_steps=1, beta=0.4)
    expected = update(start, lessons, other, tmp_path / "fresh")
    assert update(start, lessons, other, out).id == expected.id
    assert file_bytes(out) == file_bytes(tmp_path / "fresh")


def test_the_last_of_two_snapshots_counts(
    make_start: MakeStart,
    make_config: MakeConfig,
    lessons: list[Rollout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A process that dies after the renaming leaves the snapshot before.
    config, start = make_config(steps=4, save_steps=1), make_start()
    whole = update(start, lessons, config, tmp_path / "whole")
    out = tmp_path / "out"
    stopped_update(monkeypatch, 2, start, lessons, config, out)
    old = out / "snapshot-00000001"
    old.mkdir()
    (old / "progress.json").write_text(json.dumps({"step": 1, "log": [], "notes": None}))
    assert update(start, lessons, config, out).id == whole.id
    assert not list(out.glob("snapshot*"))
