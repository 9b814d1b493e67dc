"""The learner in processes of its own: one, and two that share the work."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from eva.config import DpoLearner
from eva.records import Checkpoint, Rollout
from tests.learn.runs import (
    SEED,
    Learn,
    MakeConfig,
    MakeStart,
    assert_alike,
    largest_difference,
    read_log,
)

PROGRAM = """
import sys
from pathlib import Path
import torch
from eva.config import DpoLearner
from eva.learn.trainer import make_learner
from eva.records import Checkpoint
from eva.store import read_records
from eva.records import Rollout
torch.set_num_threads(1)
start, lessons, config, out, seed = sys.argv[1:]
learner = make_learner(DpoLearner.model_validate_json(config))
lessons = read_records(Path(lessons), Rollout)
print(learner(Checkpoint(uri=start, id="start"), lessons, out=Path(out), seed=int(seed)).id)
"""


def in_own_process(
    start: Checkpoint, lessons: Sequence[Rollout], config: DpoLearner, out: Path, processes: int = 0
) -> str:
    """The last line that `PROGRAM` prints, with the learner in other processes."""
    out.mkdir()
    (out / "program.py").write_text(PROGRAM)
    lines = [rollout.model_dump_json().encode() + b"\n" for rollout in lessons]
    (out / "lessons.jsonl").write_bytes(b"".join(lines))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes else []), str(out / "program.py"), start.uri]
    command += [str(out / "lessons.jsonl"), config.model_dump_json(), str(out), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


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
    assert in_own_process(start, lessons, config, tmp_path / "alone") == second.id


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(
    make_start: MakeStart,
    make_config: MakeConfig,
    learn: Learn,
    lessons: list[Rollout],
    tmp_path: Path,
) -> None:
    # 13 pairs in steps of 4: the last step has a single pair, so one process has none of its own;
    # 60 padded tokens make one process take more passes than the other.
    start = make_start()
    config = make_config(steps=None, epochs=1, batch=4, micro_tokens=60, lr=2e-5)
    one, log = learn(start, config)
    in_own_process(start, lessons, config, tmp_path / "two", processes=2)
    two = Checkpoint(uri=str(tmp_path / "two" / "checkpoint"), id="")
    assert largest_difference(one, two) < 1e-6
    assert_alike(log, read_log(tmp_path / "two"))
