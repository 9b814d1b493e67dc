"""Draws have names."""

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eva import seeds


def test_the_same_name_gives_the_same_draw_on_every_machine():
    # blake2b(repr((1, "a", 2)), 8 bytes) >> 1, computed with a separate tool.
    import hashlib

    digest = hashlib.blake2b(b"(1, 'a', 2)", digest_size=8).hexdigest()
    assert seeds.child(1, "a", 2) == int(digest, 16) >> 1
    assert np.array_equal(seeds.rng(3, "x").random(5), seeds.rng(3, "x").random(5))


@given(st.lists(st.tuples(st.integers(), st.text()), min_size=2, max_size=20, unique=True))
def test_different_names_give_different_seeds(names):
    found = {seeds.child(seed, text) for seed, text in names}
    assert len(found) == len(names)
    assert all(0 <= seed < 2**63 for seed in found)


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(seeds).failed == 0
