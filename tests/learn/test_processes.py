"""The learner in processes of its own: one, two that share the work, and some that are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState

from eva.errors import BackEndError
from eva.parts.learners import Dpo, Ipo, Orpo, OwnOffline, Simpo, Sppo
from eva.records import Checkpoint, Rollout
from tests.learn.runs import (
    SEED,
    Learn,
    MakeConfig,
    MakeStart,
    assert_alike,
    assert_shards,
    file_bytes,
    largest_difference,
    read_log,
)

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from pydantic import TypeAdapter
from eva.jobs import leave
from eva.parts.learners import OwnOffline
from eva.learn.trainer import make_learner
from eva.records import Checkpoint, Rollout
from eva.store import read_records
torch.set_num_threads(1)
lessons, orders, seed, *how = sys.argv[1:]
if how == ["sharded"]:
    # accelerate shards on GPUs alone: it reads its launcher's word for FSDP only there. What it
    # does then works on a CPU too.
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    Accelerator(cpu=True)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
rollouts = read_records(Path(lessons), Rollout)
for start, config, out in json.loads(orders):
    if how == ["sharded"]:
        AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            cpu_ram_efficient_loading=True,
        )
    learner = make_learner(TypeAdapter(OwnOffline).validate_python(config))
    start = Checkpoint(uri=start, id="start")
    print(learner(start, rollouts, out=Path(out), seed=int(seed)).id, flush=True)
if torch.distributed.is_initialized():
    torch.distributed.barrier()
leave()
"""
KINDS = {"dpo": Dpo, "ipo": Ipo, "sppo": Sppo, "simpo": Simpo, "orpo": Orpo}
Order = tuple[Checkpoint, OwnOffline, Path]
"""Where an update starts, how it learns, and its folder."""


def started(
    orders: Sequence[Order], lessons: Sequence[Rollout], processes: int, *how: str
) -> subprocess.Popen[bytes]:
    """`PROGRAM`, with the learner in other processes; it is a process group."""
    for _, _, out in orders:
        out.mkdir(exist_ok=True)
    beside = orders[0][2].with_name(f"{orders[0][2].name}-order")
    beside.mkdir(exist_ok=True)
    (beside / "program.py").write_text(PROGRAM)
    lines = [rollout.model_dump_json().encode() + b"\n" for rollout in lessons]
    (beside / "lessons.jsonl").write_bytes(b"".join(lines))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes else []), str(beside / "program.py")]
    plain = [(start.uri, part.model_dump(mode="json"), str(out)) for start, part, out in orders]
    with (beside / "output").open("w") as output, (beside / "errors").open("w") as errors:
        return subprocess.Popen(
            [*command, str(beside / "lessons.jsonl"), json.dumps(plain), str(SEED), *how],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )


def in_own_process(
    orders: Sequence[Order], lessons: Sequence[Rollout], processes: int = 0, *how: str
) -> list[Checkpoint]:
    """What the learner makes in other processes."""
    process = started(orders, lessons, processes, *how)
    try:
        process.wait(timeout=100)
    finally:
        end(process)
    beside = orders[0][2].with_name(f"{orders[0][2].name}-order")
    assert process.returncode == 0, (beside / "errors").read_text()
    # Every process prints the same.
    ids = (beside / "output").read_text().split()[:: max(1, processes)]
    return [
        Checkpoint(uri=str(out / "checkpoint"), id=found)
        for found, (_, _, out) in zip(ids, orders, strict=True)
    ]


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and all that it started."""
    for group in [*groups(process.pid), process.pid]:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def groups(pid: int) -> list[int]:
    """The process groups that a launcher has made for its children: one of each."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children if os.getpgid(int(child)) == int(child)]


def killed_when(process: subprocess.Popen[bytes], comes: Callable[[], bool]) -> None:
    """Wait for something and kill all processes then."""
    deadline = time.monotonic() + 60.0
    while not comes():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    end(process)


def test_a_second_call_in_a_process_equals_the_first_in_another(
    make_start: MakeStart,
    make_config: MakeConfig,
    learn: Learn,
    lessons: list[Rollout],
    tmp_path: Path,
) -> None:
    start, config = make_start("gpt2", dropout=0.1), make_config()
    learn(start, make_config(lr=0.1), seed=1)
    second, _ = learn(start, config)
    (alone,) = in_own_process([(start, config, tmp_path / "alone")], lessons)
    assert alone.id == second.id


# ---------------------------------------------------------------- two processes

# 13 pairs in steps of 4: the last step has a single pair, so one process has none of its own; 60
# padded tokens make one process take more passes than the other.
UNEVEN = {"steps": None, "epochs": 1, "batch": 4, "micro_tokens": 60, "lr": 2e-4}
LORA = {"rank": 4, "dropout": 0.0, "merge": True}
PARTS: list[tuple[str, dict[str, object]]] = [
    ("llama", {"kind": "dpo"}),
    ("gpt2", {"kind": "sppo", "batch_tokens": 70}),
    ("gemma2", {"kind": "simpo", "gradient_checkpointing": True}),
    ("qwen3", {"kind": "orpo", "lora": LORA}),
    ("llama", {"kind": "ipo", "nll": 0.2}),
]


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("sharded",)], ids=["whole", "sharded"])
def test_two_processes_make_the_update_of_one(
    make_start: MakeStart,
    learn: Learn,
    lessons: list[Rollout],
    tmp_path: Path,
    how: tuple[str, ...],
) -> None:
    """One start of Python for all parts: it takes longer than an update."""
    orders: list[Order] = [
        (
            make_start(kind),
            KINDS[str(part["kind"])].model_validate(UNEVEN | part),
            tmp_path / f"{k}",
        )
        for k, (kind, part) in enumerate(PARTS)
    ]
    found = in_own_process(orders, lessons, 2, *how)
    for two, (start, config, out) in zip(found, orders, strict=True):
        one, log = learn(start, config)
        assert largest_difference(one, start) > 1e-4
        assert largest_difference(one, two) < 1e-5
        assert_alike(log, read_log(out))
        assert file_bytes(out / "checkpoint").keys() == file_bytes(Path(one.uri)).keys()


# ---------------------------------------------------------------- killed

LONG = {"steps": 8, "epochs": None, "batch": 4, "save_steps": 1, "lr": 1e-3, "kind": "dpo"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "how", "choices"),
    [
        (2, (), {"lora": LORA | {"dropout": 0.1}}),
        (2, ("sharded",), {}),
        (0, (), {"optimizer": "rmsprop"}),
    ],
    ids=["two", "sharded", "one"],
)
def test_a_killed_update_goes_on_to_the_same_bytes(
    make_start: MakeStart,
    lessons: list[Rollout],
    tmp_path: Path,
    processes: int,
    how: tuple[str, ...],
    choices: dict[str, object],
) -> None:
    config = Dpo.model_validate(LONG | choices)
    start, out = make_start(), tmp_path / "killed"
    in_own_process([(start, config, tmp_path / "whole")], lessons, processes, *how)
    # After the second snapshot, and then while a later one is written.
    for name in ("snapshot-00000002", "snapshot.part"):
        kept = sorted(out.glob("snapshot-*"))
        process = started([(start, config, out)], lessons, processes, *how)
        killed_when(process, (out / name).exists)
        assert sorted(out.glob("snapshot-*"))[-1:] >= kept[-1:]
    assert sorted(out.glob("snapshot-*"))
    assert not (out / "checkpoint").exists()
    in_own_process([(start, config, out)], lessons, processes, *how)
    assert file_bytes(out) == file_bytes(tmp_path / "whole")


# ---------------------------------------------------------------- what launchers ask for


def test_the_page_has_a_config_that_makes_accelerate_shard() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    page = Path(__file__).parents[2] / "docs" / "multi-gpu.md"
    (text,) = re.findall(r"^```yml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        assert load_config_from_file(file.name).fsdp_config["fsdp_version"] == 2
        assert_shards("--config_file", file.name)


def test_the_first_version_of_fsdp_is_refused(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=1)
    for state in (AcceleratorState, PartialState):
        monkeypatch.setitem(state._shared_state, "distributed_type", DistributedType.FSDP)
    monkeypatch.setitem(AcceleratorState._shared_state, "fsdp_plugin", plugin)
    with pytest.raises(BackEndError, match="expected fsdp_version: 2"):
        learn(make_start(), make_config())
