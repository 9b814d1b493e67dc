"""When two prompts are the same but for a few words. All of it is our choice."""

import math
from collections import Counter
from collections.abc import Sequence

from eva.words import shingles

ONE_WORD = (4, 32)
"""Prompts of so many words are the same if one word sets them apart. In shorter ones that word is
the question; in longer ones the shingles tell."""
BROUGHT = 8
"""A prompt that brings so many words which the other lacks is new, however long both are: the
in-depth operators are told to add 10 to 20 words, to prompts of any length."""


def jaccard(shared: int, first: int, second: int) -> float:
    """Jaccard similarity of two sets: |A and B| / |A or B|, 0 for two empty ones.

    Examples:
        >>> jaccard(2, 3, 3)  # 2 / (3 + 3 - 2)
        0.5
        >>> jaccard(0, 0, 0)
        0.0
    """
    together = first + second - shared
    return shared / together if together else 0.0


def bag_similarity(first: Sequence[str], second: Sequence[str]) -> float:
    """Jaccard similarity of two bags of words: a word counts as often as it stands there.

    Examples:
        >>> bag_similarity(["a", "a", "b"], ["a", "b", "c"])  # {a, b} of {a, a, b, c}
        0.5
    """
    shared = (Counter(first) & Counter(second)).total()
    return jaccard(shared, len(first), len(second))


def shingle_similarity(first: Sequence[str], second: Sequence[str], k: int) -> float:
    """Jaccard similarity of the sets of k-word shingles."""
    mine, yours = shingles(first, k), shingles(second, k)
    return jaccard(len(mine & yours), len(mine), len(yours))


def brought(child: Sequence[str], other: Sequence[str]) -> int:
    """How many words the child has beyond those of the other.

    Examples:
        >>> brought(["a", "a", "b"], ["a", "c"])  # a second "a", and "b"
        2
    """
    return (Counter(child) - Counter(other)).total()


def is_one_word_apart(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether at most one word is changed, added or left out, in prompts long enough for the rule.

    Examples:
        >>> is_one_word_apart("tell me a joke".split(), "tell me a story".split())
        True
        >>> is_one_word_apart("tell me".split(), "tell him".split())
        False
    """
    short, long = sorted((len(first), len(second)))
    if short < ONE_WORD[0] or long > ONE_WORD[1] or long - short > 1:
        return False
    begin = 0
    while begin < short and first[begin] == second[begin]:
        begin += 1
    end = 0
    while end < short - begin and first[-1 - end] == second[-1 - end]:
        end += 1
    return begin + end >= long - 1


def least_shared(size: int, similarity: float) -> int:
    """How many of its `size` shingles a set must share with any that is so similar.

    For J(A, B) >= s they share at least s times the size of A or B, hence of A.
    """
    return max(1, math.ceil(similarity * size - 1e-9))
