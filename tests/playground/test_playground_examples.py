"""The examples of the docstrings run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["domain", "sets", "evolve"])
def test_the_examples_in_the_docstrings_run(name):
    module = importlib.import_module(f"eva.playground.{name}")

    failed, tried = doctest.testmod(module)

    assert tried > 0
    assert failed == 0
