"""The world of numbers."""

import pytest

from eva import toy
from eva.config import ToyPrompts
from eva.errors import BackEndError
from eva.evaluation import metrics
from eva.records import Checkpoint, Response, Sampling


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
