"""Small functions lifted to the seams."""

import doctest
from contextlib import contextmanager

import numpy as np
import pytest

from eva import adapt
from eva.protocols import Chaining
from eva.records import Checkpoint, Message, Prompt, Response, Sampling

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


class Counting:
    """A policy that answers with the length of the prompt, and remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, n, *, sampling, seed):
        self.calls.append([prompt.messages[0].content for prompt in prompts])
        return [[Response(text=str(len(prompt.messages[0].content)))] for prompt in prompts]


def ask(text):
    return Prompt(messages=(Message(role="user", content=text),))


def grow(heard, ends):
    """Chain i asks "x", "xx", ... up to `ends[i]` prompts."""

    def following(i, answer):
        heard.append((i, answer and answer.text))
        length = int(answer.text) + 1 if answer else 1
        return ask("x" * length) if length <= ends[i] else None

    return following


def test_chains_are_asked_step_by_step_where_a_policy_knows_nothing_better():
    policy, heard = Counting(), []
    adapt.chains(policy, 3, grow(heard, [2, 0, 1]), sampling=Sampling(), seed=1)
    assert policy.calls == [["x", "x"], ["xx"]]
    assert heard == [(0, None), (1, None), (2, None), (0, "1"), (2, "1"), (0, "2")]

    adapt.chains(policy, 0, grow(heard, []), sampling=Sampling(), seed=1)
    assert len(policy.calls) == 2  # there was nothing to ask


def test_a_policy_that_chains_is_asked_to():
    class Chains(Counting):
        def chains(self, count, following, *, sampling, seed):
            self.calls.append((count, following(0, None), seed))

    policy = Chains()
    assert isinstance(policy, Chaining)
    adapt.chains(policy, 2, grow([], [1, 1]), sampling=Sampling(), seed=5)
    assert policy.calls == [(2, ask("x"), 5)]


def test_a_model_is_opened_when_it_is_asked_and_closed_when_it_is_left():
    seen = []

    @contextmanager
    def open_policy(checkpoint):
        seen.append(f"open {checkpoint.id}")
        yield Counting()
        seen.append("close")

    with adapt.Asked("m", open_policy, Checkpoint(uri="u", id="theta")) as asked:
        assert seen == []
        [[one]] = asked([ask("abc")], 1, sampling=Sampling(), seed=1)
        asked.chains(1, grow([], [2]), sampling=Sampling(), seed=1)
        assert (one.text, seen) == ("3", ["open theta"])
        asked.release()
        assert seen == ["open theta", "close"]
        asked.chains(1, grow([], [1]), sampling=Sampling(), seed=1)
    assert seen == ["open theta", "close"] * 2


def test_how_a_context_is_left_is_told_to_what_was_opened():
    seen = []

    @contextmanager
    def open_policy(checkpoint):
        try:
            yield Counting()
        except KeyError as error:
            seen.append(repr(error))
            raise

    with (
        pytest.raises(KeyError),
        adapt.Asked("m", open_policy, Checkpoint(uri="u", id="t")) as asked,
    ):
        asked([ask("abc")], 1, sampling=Sampling(), seed=1)
        raise KeyError("x")
    assert seen == ["KeyError('x')"]


def test_nothing_is_opened_where_nothing_is_asked():
    def open_policy(checkpoint):
        raise AssertionError("nobody asks")

    heard = []
    asked = adapt.Asked("m", open_policy, Checkpoint(uri="u", id="t"))
    asked.chains(3, grow(heard, [0, 0, 0]), sampling=Sampling(), seed=1)
    asked.chains(0, grow(heard, []), sampling=Sampling(), seed=1)
    assert heard == [(0, None), (1, None), (2, None)]


def test_each_chain_of_a_model_begins_once():
    @contextmanager
    def open_policy(checkpoint):
        yield policy

    policy, heard = Counting(), []
    with adapt.Asked("m", open_policy, Checkpoint(uri="u", id="t")) as asked:
        asked.chains(3, grow(heard, [0, 2, 1]), sampling=Sampling(), seed=1)
    assert [told for told in heard if told[1] is None] == [(0, None), (1, None), (2, None)]
    assert policy.calls == [["x", "x"], ["xx"]]
