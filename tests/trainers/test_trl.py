"""TRL as the learner, where it is installed: what it gets, what it makes, how it goes on."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eva.errors import BackEndError, RecipeError
from eva.parts.learners import Trl
from eva.parts.policies import HfPolicy
from eva.protocols import Learner
from eva.records import Checkpoint, Rollout
from eva.trainers import command
from eva.trainers.command import make_learner
from tests.learn.runs import file_bytes, largest_difference, read_log
from tests.trainers.conftest import SEED, group

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None, reason="needs trl: pip install 'eva-rlhf[trl]'"
    ),
    pytest.mark.filterwarnings("ignore"),  # TRL's own, which are not ours to mend
]

Make = Callable[..., Learner]
STOP_AT_2 = """
import os, signal, sys
from pathlib import Path
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

class Killed(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        torn = Path(args.output_dir) / "checkpoint-9"
        torn.mkdir()
        os.kill(os.getpid(), signal.SIGKILL)

DEFAULT_CALLBACKS.append(Killed)
"""
"""What a process does in the middle of a TRL update, by its public hook: the power fails."""


@pytest.fixture(scope="module")
def finished(
    trl_learner: Make,
    start: Checkpoint,
    lessons: list[Rollout],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Checkpoint]:
    """An update that nothing interrupted, and its folder."""
    out = tmp_path_factory.mktemp("finished")
    return out, trl_learner(save_steps=2)(start, lessons, out=out, seed=SEED)


def test_the_update_starts_at_the_reference_and_leaves_a_model_in_float32(
    start: Checkpoint, finished: tuple[Path, Checkpoint]
) -> None:
    out, made = finished
    weights = load_file(Path(made.uri) / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert largest_difference(start, made) > 1e-4
    ours, theirs = file_bytes(Path(made.uri)), file_bytes(Path(start.uri))
    assert set(ours) == set(theirs)
    assert ours["tokenizer.json"] == theirs["tokenizer.json"]
    assert ours["chat_template.jinja"] == theirs["chat_template.jinja"]
    assert not (out / "trl").exists()
    log = read_log(out)
    assert [row["step"] for row in log] == [1, 2, 3]
    # The policy is its own reference at first: no margin, and a loss of log 2.
    assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert log[0]["margin"] == pytest.approx(0.0, abs=1e-6)
    assert {"grad_norm", "lr", "accuracy"} <= set(log[0])


def test_answers_that_were_cut_are_left_out_and_counted(
    trl_learner: Make, start: Checkpoint, out: Path
) -> None:
    rng = np.random.default_rng(0)
    some = [group(rng, (0.0, 1.0), "length"), group(rng, (0.0, 1.0), "stop")]
    trl_learner(max_steps=1)(start, some, out=out, seed=SEED)
    job = json.loads((out / "job.json").read_bytes())
    assert job["counts"] == {"pairs": 1, "ties": 0, "missing": 0, "cut": 1}
    assert len((out / "pairs.jsonl").read_bytes().splitlines()) == 1


def test_where_every_answer_was_cut_nothing_is_pretended(
    trl_learner: Make, start: Checkpoint, out: Path
) -> None:
    cut = [group(np.random.default_rng(0), (0.0, 1.0), "length")]
    with pytest.raises(BackEndError, match=r"1 of 1 pairs have a cut response.*max_tokens"):
        trl_learner()(start, cut, out=out, seed=SEED)


@pytest.mark.slow
def test_a_killed_update_goes_on_from_the_last_whole_snapshot(
    trl_learner: Make,
    start: Checkpoint,
    lessons: list[Rollout],
    out: Path,
    tmp_path: Path,
    finished: tuple[Path, Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOP_AT_2)
    learner = trl_learner(save_steps=2)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(BackEndError, match="signal 9"):
            learner(start, lessons, out=out, seed=SEED)
    assert sorted(p.name for p in (out / "trl").iterdir() if p.is_dir()) == [
        "checkpoint-2",
        "checkpoint-9",
    ]
    made = learner(start, lessons, out=out, seed=SEED)
    assert made.id == finished[1].id
    # Two steps before the kill and one after it, not three more.
    assert (out / "command.log").read_bytes().count(b"'loss'") == 3


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"learning_rat": 1.0}, "knows no 'learning_rat'; did you mean 'learning_rate'"),
        ({"output_dir": "x"}, "output_dir cannot be given: eva says where"),
        ({"seed": 1}, "seed cannot be given"),
    ],
)
def test_arguments_that_trl_does_not_know_or_eva_sets_are_refused(
    policy: HfPolicy, args: dict[str, object], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make_learner(Trl.model_validate({"kind": "trl", "args": args}), policy)


def test_a_value_that_trl_refuses_comes_back_as_a_wrong_recipe(
    trl_learner: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    with pytest.raises(RecipeError, match=r"refuses them: .*nope"):
        trl_learner(lr_scheduler_type="nope")(start, lessons, out=out, seed=SEED)


def test_weights_that_are_no_longer_finite_are_refused(
    trl_learner: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    with pytest.raises(BackEndError, match="no longer finite"):
        trl_learner(learning_rate=1e38, max_grad_norm=0.0)(start, lessons, out=out, seed=SEED)
    assert not (out / "checkpoint").exists()


def test_without_trl_the_recipe_says_what_to_install(
    policy: HfPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"pip install 'eva-rlhf\[trl\]'"):
        make_learner(Trl(kind="trl"), policy)


@pytest.mark.slow
def test_two_processes_share_the_work(
    trl_learner: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    launch = ("torchrun", "--standalone", "--nproc-per-node", "2")
    # Two processes take 4 of the 12 pairs each in a step, so an epoch has two steps.
    args = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4}
    made = trl_learner(launch, **args)(start, lessons, out=out, seed=SEED)
    assert [row["step"] for row in read_log(out)] == [1, 2]
    assert largest_difference(start, made) > 1e-4
