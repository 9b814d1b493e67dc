"""The examples of the docstrings run."""

import doctest

import pytest

from eva.rewards import armo, duels, rubrics, scoring, texts, verdicts


@pytest.mark.parametrize("module", [armo, duels, rubrics, scoring, texts, verdicts])
def test_the_examples_of_the_docstrings_run(module):
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
