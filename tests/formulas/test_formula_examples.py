"""The examples in the docstrings of the formulas run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["groups", "informativeness", "selection", "pairing", "advantages", "statistics"]
)
def test_the_examples_of_the_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"eva.formulas.{name}")
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
