"""Small functions lifted to the seams."""

import doctest

import numpy as np
import pytest

from eva import adapt
from eva.records import Message, Prompt, Response

ASK = Prompt(messages=(Message(role="user", content="x"),))


def group(*texts: str) -> list[Response]:
    return [Response(text=t) for t in texts]


def test_a_score_of_one_response_becomes_a_reward_of_groups():
    reward = adapt.per_response(lambda p, r: None if r.text == "?" else len(r.text))
    found = reward([ASK, ASK], [group("a", "?"), group("abc", "")])
    assert np.array_equal(found, [[1.0, np.nan], [3.0, 0.0]], equal_nan=True)


def test_a_preference_is_asked_in_both_orders_and_averaged():
    # The judge prefers the longer one surely, and the first place by 0.2 otherwise.
    def judge(prompt, a, b):
        return 0.6 if len(a.text) == len(b.text) else float(len(a.text) > len(b.text))

    found = adapt.pairwise(judge)([ASK], [group("aa", "bb", "c")])
    # aa against bb: (0.6 + 1 - 0.6) / 2 = 0.5, against c: 1; the mean is 0.75. c beats nobody.
    assert found.tolist() == [[0.75, 0.75, 0.0]]


@pytest.mark.parametrize("lost", [("a", "b"), ("b", "a")])
def test_a_missing_preference_is_left_out_and_never_a_half(lost):
    def judge(prompt, a, b):
        return None if (a.text, b.text) == lost else float(a.text < b.text)

    found = adapt.pairwise(judge)([ASK], [group("a", "b", "c")])
    # a against b is unknown, so a and b are judged by c alone; c loses to both.
    assert found.tolist() == [[1.0, 1.0, 0.0]]


def test_a_response_without_any_preference_is_missing():
    found = adapt.pairwise(lambda p, a, b: None)([ASK], [group("a", "b")])
    assert np.isnan(found).all()


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(adapt).failed == 0


def test_a_failed_answer_takes_part_in_no_duel():
    asked = []

    def longer(prompt, first, second):
        asked.append((first.text, second.text))
        return float(len(first.text) > len(second.text))

    broken = Response(text="", finish="error", error="down")
    answers = [*group("a", "aa"), broken]
    rewards = adapt.pairwise(longer)([ASK], [answers])
    np.testing.assert_array_equal(rewards, [[0.0, 1.0, np.nan]])
    assert set(asked) == {("a", "aa"), ("aa", "a")}
    scored = adapt.per_response(lambda p, r: float(r.text == "a"))([ASK], [answers])
    np.testing.assert_array_equal(scored, [[1.0, 0.0, np.nan]])
