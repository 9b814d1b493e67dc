"""What crosses from one process to another in files."""

import json
import os
from pathlib import Path

import pytest

from eva.errors import BackEndError, EvaError, PlugInError, RecipeError
from eva.jobs import OwnJob, first_error, forget_errors, leave, lessons_digest, told
from eva.parts.learners import Dpo, Sppo
from eva.parts.policies import LanguageModel
from eva.records import Checkpoint, Message, Prompt, Response, Rollout


@pytest.mark.parametrize("error", [RecipeError("a wrong recipe"), BackEndError("no memory")])
def test_an_error_comes_back_as_it_was(tmp_path: Path, error: EvaError) -> None:
    with pytest.raises(SystemExit) as caught, told(tmp_path):
        raise error
    assert caught.value.code == 1
    found = first_error(tmp_path)
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_what_is_no_error_of_eva_becomes_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), told(tmp_path):
        raise ZeroDivisionError("by zero")
    found = first_error(tmp_path)
    assert isinstance(found, PlugInError)
    assert "the learner raised ZeroDivisionError: by zero" in str(found)


def test_of_several_errors_the_first_counts_and_all_are_forgotten(tmp_path: Path) -> None:
    for number, time in ((1, 20), (2, 10), (3, 30)):
        path = tmp_path / f"error-{number}.json"
        path.write_text(json.dumps({"kind": "BackEndError", "text": str(number)}))
        os.utime(path, (time, time))
    assert str(first_error(tmp_path)) == "2"
    forget_errors(tmp_path)
    assert first_error(tmp_path) is None


def test_without_an_error_nothing_is_told(tmp_path: Path) -> None:
    with told(tmp_path):
        pass
    assert first_error(tmp_path) is None


@pytest.mark.parametrize("learner", [Dpo(kind="dpo"), Sppo(kind="sppo", launch=("torchrun",))])
def test_a_job_says_which_learner_it_is_for(learner: Dpo | Sppo) -> None:
    job = OwnJob(
        learner=learner,
        policy=LanguageModel(model="m"),
        start=Checkpoint(uri="m", id="m"),
        lessons="",
        rollouts="rollouts.jsonl",
        out="out",
        seed=1,
        result="result.jsonl",
    )
    assert OwnJob.model_validate_json(job.model_dump_json()) == job


def test_the_digest_of_lessons_sees_prompts_responses_and_rewards() -> None:
    def lesson(prompt: str = "p", response: str = "y", reward: float | None = 1.0) -> Rollout:
        return Rollout(
            prompt=Prompt(messages=(Message(role="user", content=prompt),)),
            responses=(Response(text=response),),
            rewards=(reward,),
            policy="theta",
            round=0,
        )

    others = [[lesson("q")], [lesson(response="z")], [lesson(reward=None)], [lesson()] * 2, []]
    digests = {lessons_digest(lessons) for lessons in ([lesson()], *others)}
    assert len(digests) == 6
    assert lessons_digest([lesson()]) in digests


def test_a_process_leaves_after_what_was_registered_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[object] = []
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: done.append("registered"))
    monkeypatch.setattr("os._exit", done.append)
    leave()
    assert done == ["registered", 0]
