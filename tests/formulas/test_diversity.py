"""How varied texts are, by hand."""

import doctest
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.formulas import diversity
from eva.formulas.diversity import compression_ratio, distinct_n, nearest_similarity
from eva.words import shingles


def test_the_examples_hold():
    assert doctest.testmod(diversity)[0] == 0


def test_distinct_counts_different_n_grams_among_all():
    texts = [["a", "b", "c"], ["a", "b", "d"], ["a"]]
    # Pairs: ab bc ab bd, of which ab bc bd differ. Words: 7 of which a b c d differ.
    assert distinct_n(texts, 2) == 3 / 4
    assert distinct_n(texts, 1) == 4 / 7
    assert np.isnan(distinct_n([["a"]], 2))
    assert np.isnan(distinct_n([], 2))


def test_the_compression_ratio_is_raw_over_compressed_bytes():
    texts = ["one two", "thr\u00e9e"]
    raw = b"one two\nthr\xc3\xa9e"
    assert compression_ratio(texts) == len(raw) / len(zlib.compress(raw, 6))
    assert compression_ratio(["same words"] * 50) > compression_ratio(["same words"])
    assert np.isnan(compression_ratio([]))


def test_the_nearest_of_each_text_is_found():
    a, b, c, d = ({(w,) for w in words} for words in ("wxyz", "wxyq", "wq", ""))
    # J(a, b) = 3/5, J(a, c) = 1/5, J(b, c) = 2/4; d is empty and like nothing.
    # Nearest: a 3/5, b 3/5, c 1/2, d 0.
    rng = np.random.default_rng(0)
    assert nearest_similarity([a, b, c, d], 4, rng) == pytest.approx((0.6 + 0.6 + 0.5 + 0) / 4)
    assert np.isnan(nearest_similarity([a], 4, rng))
    assert nearest_similarity([a, set(a)], 4, rng) == 1.0


@given(st.lists(st.text("abc", max_size=5), min_size=2, max_size=12), st.integers(1, 15))
def test_the_nearest_similarity_equals_a_comparison_of_all_pairs(texts, queries):
    found = [shingles(list(text), 2) for text in texts]
    asked = np.random.default_rng(7).permutation(len(found))[:queries]

    def alike(one, other):
        return len(one & other) / len(one | other) if one | other else 0.0

    slow = [max(alike(found[i], found[j]) for j in range(len(found)) if j != i) for i in asked]
    fast = nearest_similarity(found, queries, np.random.default_rng(7))
    assert fast == pytest.approx(np.mean(slow))
