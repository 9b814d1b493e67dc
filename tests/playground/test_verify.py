"""The reward: graded, binary and noisy, by hand."""

import subprocess
import sys

import numpy as np
import pytest

from eva.parts.rewards import PlaygroundReward
from eva.playground.verify import error, make_reward
from eva.records import Message, Prompt, Response


def prompt(text):
    return Prompt(messages=(Message(role="user", content=text),), by="test")


def reward(form, **fields):
    return make_reward(PlaygroundReward(kind="playground", form=form, **fields))


PROMPTS = [prompt("last 6 more 4 even"), prompt("len 2")]
RESPONSES = [
    [Response(text="8 4 2 6"), Response(text="8 4 2"), Response(text="8 4 2 six")],
    [Response(text="1 1"), Response(text="1 1", finish="length"), Response(text="")],
]


def test_the_graded_reward_is_the_score_and_0_for_what_is_no_answer():
    rewards_P_G = reward("graded")(PROMPTS, RESPONSES)

    # 8 4 2 meets two of three: 0.5 * 2 / 3. Malformed, never-ending and empty: 0.
    assert rewards_P_G.dtype == np.float64
    np.testing.assert_allclose(rewards_P_G, [[1, 1 / 3, 0], [1, 0, 0]], atol=1e-15)


def test_the_binary_reward_is_1_only_where_all_hold():
    np.testing.assert_array_equal(reward("binary")(PROMPTS, RESPONSES), [[1, 0, 0], [1, 0, 0]])


def test_the_noisy_reward_is_the_graded_one_plus_sigma_times_a_fixed_error():
    graded_P_G = reward("graded")(PROMPTS, RESPONSES)

    noisy_P_G = reward("noisy", sigma=0.15, noise_seed=3)(PROMPTS, RESPONSES)

    errors = [[error(x, y, 3) for y in group] for x, group in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(noisy_P_G - graded_P_G, 0.15 * np.array(errors), atol=1e-15)
    np.testing.assert_array_equal(
        noisy_P_G, reward("noisy", sigma=0.15, noise_seed=3)(PROMPTS, RESPONSES)
    )
    assert not np.any(noisy_P_G == reward("noisy", sigma=0.15, noise_seed=4)(PROMPTS, RESPONSES))


def test_the_error_belongs_to_prompt_and_text_and_is_a_standard_normal():
    x, y = prompt("even"), Response(text="2")

    assert error(x, y, 0) == error(x, Response(text="2", tokens=(7, 2)), 0)
    assert error(x, y, 0) != error(prompt("odd"), y, 0)
    assert error(x, y, 0) != error(x, Response(text="4"), 0)
    draws = [error(x, Response(text=str(i)), 0) for i in range(2000)]
    # Four standard errors: 4 / sqrt(2000) = 0.09 for the mean, 4 / sqrt(4000) = 0.06 for the rest.
    assert abs(np.mean(draws)) < 0.09
    assert abs(np.std(draws) - 1) < 0.065


def test_the_error_is_the_same_in_every_process():
    program = (
        "from eva.playground.verify import error\n"
        "from eva.records import Message, Prompt, Response\n"
        "x = Prompt(messages=(Message(role='user', content='even'),), by='test')\n"
        "print(repr(error(x, Response(text='2'), 5)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "12345"},
    )

    assert float(done.stdout) == error(prompt("even"), Response(text="2"), 5)


@pytest.mark.parametrize("form", ["graded", "binary", "noisy"])
def test_a_prompt_outside_the_language_has_no_reward(form):
    foreign = [prompt("write a poem"), prompt("even")]
    answers = [[Response(text="2"), Response(text="4")]] * 2

    rewards_P_G = reward(form, sigma=0.0)(foreign, answers)

    np.testing.assert_array_equal(rewards_P_G, [[np.nan, np.nan], [1, 1]])


def test_no_prompts_make_no_rewards():
    assert reward("graded")([], []).shape == (0, 0)
