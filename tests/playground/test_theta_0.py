"""The shipped checkpoint is what its card says."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva.playground.measure import answers, measure
from eva.playground.sets import prompts, theta_0_path


@pytest.fixture(scope="module")
def theta_0():
    threads, folder = torch.get_num_threads(), theta_0_path()
    torch.set_num_threads(1)
    yield AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    torch.set_num_threads(threads)


def card(name):
    """The four numbers of a held-out set in the model card."""
    lines = (theta_0_path() / "README.md").read_text("utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {name} |"))
    return [float(cell) for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("name", ["eval_hard", "eval_x0"])
def test_theta_0_reaches_the_numbers_of_its_card(theta_0, name):
    measured = measure(*theta_0, prompts(name, 400, seed=0))

    greedy_reward, greedy_accuracy, reward, accuracy = card(name)
    assert measured["greedy_accuracy"] == greedy_accuracy
    assert measured["greedy_reward"] == pytest.approx(greedy_reward, abs=5e-5)
    # Samples go through the exponential, whose last bit is the machine's.
    assert measured["reward"] == pytest.approx(reward, abs=0.02)
    assert measured["accuracy"] == pytest.approx(accuracy, abs=0.02)


def test_samples_have_a_seed_and_come_in_groups(theta_0):
    asked = prompts("eval_x0", 8, seed=0)

    drawn = [answers(*theta_0, asked, samples=4, seed=seed) for seed in (1, 1, 2)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(group) for group in drawn[0]] == [4] * 8
