"""eva's own learners in processes that a launcher starts."""

from pathlib import Path

import pytest

from eva.errors import BackEndError, RecipeError
from eva.learn import trainer
from eva.parts.learners import Dpo
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Rollout
from eva.trainers.command import make_learner
from tests.learn.runs import SEED, largest_difference

TWO = ("torchrun", "--standalone", "--nproc-per-node", "2")


def dpo(launch: tuple[str, ...] = (), **choices: object) -> Dpo:
    small = {"kind": "dpo", "beta": 0.3, "lr": 1e-3, "epochs": None, "steps": 2, "batch": 6}
    return Dpo.model_validate(small | choices | {"launch": launch})


@pytest.mark.slow
def test_two_processes_make_the_update_of_this_one(
    start: Checkpoint, policy: HfPolicy, lessons: list[Rollout], out: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    expected = trainer.make_learner(dpo(), policy)(start, lessons, out=here, seed=SEED)
    learner = make_learner(dpo(TWO), policy)
    made = learner(start, lessons, out=out, seed=SEED)
    assert made.uri == str(out / "checkpoint")
    assert largest_difference(expected, made) < 1e-5
    # A finished update that was not recorded yet is not made again.
    assert learner(start, lessons, out=out, seed=SEED) == made
    assert (out / "launch" / "command.log").read_bytes().count(b"$ ") == 1


def test_an_error_of_a_process_comes_back_as_it_was(
    start: Checkpoint, policy: HfPolicy, lessons: list[Rollout], out: Path
) -> None:
    nowhere = Checkpoint(uri=str(out / "nowhere"), id="x")
    with pytest.raises(BackEndError, match=r"nowhere does not exist.*command\.log\)$") as caught:
        make_learner(dpo(TWO), policy)(nowhere, lessons, out=out, seed=SEED)
    assert "\n" not in str(caught.value)


def test_a_launcher_that_starts_nothing_is_one_error(
    start: Checkpoint, policy: HfPolicy, lessons: list[Rollout], out: Path
) -> None:
    with pytest.raises(BackEndError, match="ended well, but no process of it learnt"):
        make_learner(dpo(("true",)), policy)(start, lessons, out=out, seed=SEED)


def test_a_launcher_that_is_not_there_is_a_wrong_recipe(policy: HfPolicy) -> None:
    with pytest.raises(RecipeError, match=r"learner\.launch: there is no program 'torchrunn'"):
        make_learner(dpo(("torchrunn",)), policy)
