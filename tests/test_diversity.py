import pytest

from eva.diversity import SAMPLE, diversity
from eva.records import Message, Prompt


def prompts(*texts):
    return [Prompt(messages=(Message(role="user", content=text),)) for text in texts]


def test_the_measures_are_those_of_the_last_user_turns():
    # Pairs: "a b", "b c", "a b": 2 of 3 differ. Shingles of 3: {abc} and {ab}: nothing in common.
    found = diversity(prompts("A b c.", "a, b"))
    assert found["distinct_2"] == pytest.approx(2 / 3)
    assert found["nearest"] == 0.0
    assert found["words"] == 2.5
    assert 0 < found["compression"] < 2


def test_what_cannot_be_had_is_left_out():
    assert set(diversity(prompts("?"))) == {"compression", "words"}
    assert diversity([]) == {}


def test_a_large_pool_is_sampled_always_the_same_way():
    many = prompts(*(f"number {i} of many" for i in range(3 * SAMPLE)))
    assert diversity(many) == diversity(many)
    # Every sampled prompt has one pair of its own on either side of its number: of 3 n pairs
    # "number i", "i of", "of many" 2 n + 1 differ.
    assert diversity(many)["distinct_2"] == pytest.approx((2 * SAMPLE + 1) / (3 * SAMPLE))
