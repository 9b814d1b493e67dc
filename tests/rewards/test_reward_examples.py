"""The examples of the docstrings run."""

import doctest

import pytest

from eva.backends import memory
from eva.rewards import armo, duels, rubrics, texts, verdicts


@pytest.mark.parametrize("module", [armo, duels, memory, rubrics, texts, verdicts])
def test_the_examples_of_the_docstrings_run(module):
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
