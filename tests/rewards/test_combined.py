"""Sums and length penalties, by hand."""

import numpy as np
import pytest

from eva import adapt
from eva.errors import PlugInError
from eva.parts.rewards import LengthReward, ToyReward
from eva.protocols import Releasable
from eva.records import Response
from eva.rewards.combined import Shortened, WeightedSum
from tests.rewards.models import failed, group, prompt

ASK = prompt("w0")
nan = np.nan


def rewards(*rows):
    """A reward that gives these numbers, whatever it is asked."""
    return lambda prompts, responses: np.array(rows, dtype=np.float64)


class Held:
    """A reward that holds something."""

    released = 0

    def __call__(self, prompts, responses):
        return np.zeros((len(prompts), len(responses[0])))

    def release(self):
        self.released += 1


def shortened(inner, **choices) -> Shortened:
    return Shortened(LengthReward(kind="length", of=ToyReward(kind="toy"), **choices), inner)


def test_a_weighted_sum_is_missing_where_a_term_is():
    terms = [(2.0, rewards([1.0, 2.0, nan])), (-0.5, rewards([4.0, nan, 1.0]))]
    found = WeightedSum(terms)([ASK], [group("a", "b", "c")])
    # 2 * 1 - 0.5 * 4 = 0
    np.testing.assert_array_equal(found, [[0.0, nan, nan]])


def test_a_term_of_weight_zero_still_has_to_be_there():
    found = WeightedSum([(1.0, rewards([1.0, 1.0])), (0.0, rewards([nan, 5.0]))])
    np.testing.assert_array_equal(found([ASK], [group("a", "b")]), [[nan, 1.0]])


def test_the_rewards_of_a_term_are_not_changed():
    kept = np.array([[1.0, 2.0]])
    WeightedSum([(3.0, lambda p, r: kept), (1.0, lambda p, r: kept)])([ASK], [group("a", "b")])
    shortened(lambda p, r: kept, penalty=1.0)([ASK], [group("a", "b")])
    assert kept.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "wrap", [lambda r: WeightedSum([(1.0, r)]), lambda r: shortened(r, penalty=1.0)]
)
def test_a_wrong_shape_inside_is_one_sentence(wrap):
    with pytest.raises(PlugInError, match=r"shape \[1, 1\]; expected numbers of shape \[1, 2\]"):
        wrap(rewards([1.0]))([ASK], [group("a", "b")])


@pytest.mark.parametrize(
    ("unit", "lengths"),
    # "one two" has 7 characters, 2 words, and was sampled as 4 tokens.
    [("characters", [7, 0]), ("words", [2, 0]), ("tokens", [4, 1])],
)
def test_the_penalty_is_for_what_goes_beyond_the_free_length(unit, lengths):
    answers = [Response(text="one two", tokens=(1, 2, 3, 4)), Response(text="", tokens=(5,))]
    found = shortened(rewards([10.0, 10.0]), penalty=0.5, unit=unit)([ASK], [answers])
    assert found.tolist() == [[10.0 - 0.5 * length for length in lengths]]
    free = shortened(rewards([10.0, 10.0]), penalty=0.5, unit=unit, free=1)([ASK], [answers])
    assert free.tolist() == [[10.0 - 0.5 * max(0, length - 1) for length in lengths]]


def test_a_missing_reward_stays_missing():
    found = shortened(rewards([nan, 1.0]), penalty=1.0, unit="tokens")(
        [ASK], [[failed(), Response(text="x", tokens=(1, 2))]]
    )
    np.testing.assert_array_equal(found, [[nan, -1.0]])


def test_a_policy_that_counts_no_tokens_is_one_sentence():
    with pytest.raises(PlugInError, match=r"no token ids .* set reward\.unit to words"):
        shortened(rewards([1.0]), penalty=1.0, unit="tokens")([ASK], [group("a")])


def test_release_goes_through():
    held = Held()
    plain = adapt.per_response(lambda p, r: 1.0)
    whole = WeightedSum([(1.0, shortened(held, penalty=1.0)), (1.0, plain)])
    assert isinstance(whole, Releasable)
    whole.release()
    assert held.released == 1
