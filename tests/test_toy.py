"""The world of numbers."""

import pytest

from eva import toy
from eva.errors import BackEndError
from eva.evaluation import metrics
from eva.parts.learners import ToyOnline
from eva.parts.prompts import ToyPrompts
from eva.records import Checkpoint, Response, Rollout, Sampling


def test_a_reward_is_the_logistic_of_what_effort_exceeds_difficulty():
    prompt = toy.prompts(ToyPrompts(kind="toy", n=1, low=1.0, high=1.0 + 1e-9), seed=0)[0]
    rewards = toy.reward([prompt], [[Response(text="1.0"), Response(text="1.5")]])
    # 1 / (1 + e^0) and 1 / (1 + e^(4 (1 - 1.5))) = 1 / (1 + e^-2)
    assert rewards[0] == pytest.approx([0.5, 0.8807970779778823], abs=1e-5)


def test_a_greedy_answer_is_the_skill_itself():
    with toy.open_policy(Checkpoint(uri="toy:0.75", id="x")) as policy:
        prompt = toy.prompts(ToyPrompts(kind="toy", n=1), seed=0)
        [[response]] = policy(prompt, 1, sampling=Sampling(temperature=0.0), seed=1)
    assert response.text == "0.750000"


def rollout(*rewards: float | None) -> Rollout:
    [prompt] = toy.prompts(ToyPrompts(kind="toy", n=1), seed=0)
    responses = tuple(Response(text="0.0") for _ in rewards)
    return Rollout(prompt=prompt, responses=responses, rewards=rewards, policy="x", round=0)


def test_a_trainee_answers_with_the_skill_that_it_has_grown_to(tmp_path):
    learner = toy.make_online_learner(ToyOnline(kind="toy_online", lr=0.5))
    start = Checkpoint(uri="toy:0.25", id="x")
    lessons = [rollout(0.0, 1.0), rollout(0.5, None, 0.75), rollout(None)]
    prompts = [lesson.prompt for lesson in lessons[:1]]
    with learner(start, reference=start, out=tmp_path, seed=1, round=0) as trainee:
        # Margins 1 and 1/4, mean 5/8, times 1/2: from 0.25 to 0.5625.
        assert trainee.learn(lessons) == {"margin": 0.625, "skill": 0.5625}
        [[response]] = trainee.policy(prompts, 1, sampling=Sampling(temperature=0.0), seed=1)
        assert response.text == "0.562500"
        assert toy.skill_of(trainee.finish()) == 0.5625


@pytest.mark.parametrize(("save_steps", "step"), [(1, 3), (2, 2), (4, 0), (None, 0)])
def test_a_trainee_goes_on_from_its_last_snapshot_with_its_notes(tmp_path, save_steps, step):
    learner = toy.make_online_learner(ToyOnline(kind="toy_online", lr=0.5, save_steps=save_steps))
    start = Checkpoint(uri="toy:0.0", id="x")
    with learner(start, reference=start, out=tmp_path, seed=1, round=0) as trainee:
        for number in range(1, 4):
            trainee.learn([rollout(0.0, 1.0)])
            trainee.keep(f"notes of {number}")
    with learner(start, reference=start, out=tmp_path, seed=1, round=0) as trainee:
        assert (trainee.step, trainee.notes) == (step, f"notes of {step}" if step else None)
        checkpoint = trainee.finish()
        assert toy.skill_of(checkpoint) == 0.5 * step
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_that_is_no_skill_is_one_sentence(tmp_path):
    with pytest.raises(BackEndError, match=r"is no toy checkpoint; expected a folder with skill"):
        toy.skill_of(Checkpoint(uri=str(tmp_path), id="x"))


def test_metrics_leave_out_what_is_missing():
    import numpy as np

    nan = np.nan
    now, first = np.array([[1.0, nan], [0.0, 0.5]]), np.array([[0.5, 0.5], [nan, 0.5]])
    # Present: 1, 0, 0.5; pairs with theta_0: (1, 0.5) a win and (0.5, 0.5) a tie.
    assert metrics(now, first, None) == {"missing": 1.0, "reward": 0.5, "win_rate": 0.75}
    assert metrics(now, first, 0.5)["accuracy"] == pytest.approx(2 / 3)
    assert metrics(now * nan, first, 0.5) == {"missing": 4.0}
