"""Rows of a JSON-lines file."""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from eva.errors import RecipeError
from eva.parts.prompts import FilePrompts


def rows(config: FilePrompts) -> Iterator[dict[str, JsonValue]]:
    """The objects of the file, one per line; empty lines are passed over.

    Raises:
        RecipeError: The file is missing, or a line is no JSON object.
    """
    path = Path(config.path)
    if not path.is_file():
        raise RecipeError(f"there is no file {path}; set prompts.path to a JSON-lines file")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row(line, f"{path}:{number}")


def _row(line: bytes, place: str) -> dict[str, JsonValue]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{place} is no JSON ({error}); expected one object per line") from error
    if not isinstance(row, dict):
        raise RecipeError(f"{place} holds {type(row).__name__}; expected one object per line")
    return row
