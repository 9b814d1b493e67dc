"""From rows of a table to prompts: a column of text or chat turns, and what the reward needs.

A row that cannot be read stops the run before any work, with its number. A row that repeats an
earlier one is no mistake of the run: it is refused with that reason and counted.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue, ValidationError

from eva.errors import RecipeError
from eva.parts.prompts import DatasetPrompts, FilePrompts
from eva.records import Message, Prompt, Refused


def prompts(
    rows: Iterable[Mapping[str, JsonValue]], config: FilePrompts | DatasetPrompts
) -> tuple[list[Prompt], list[Refused]]:
    """The distinct prompts of a table, in its order, and the rows refused as duplicates.

    Raises:
        RecipeError: A row lacks a column, or holds something else than a text or chat turns; or
            there are no rows at all.
    """
    found: dict[str, Prompt] = {}
    first_row: dict[str, int] = {}
    refused: list[Refused] = []
    for number, row in enumerate(rows, 1):
        if config.limit is not None and len(found) == config.limit:
            break
        prompt = _prompt(row, config, f"{config.path}, row {number}")
        if prompt.id in found:
            flaw = f"row {number} repeats row {first_row[prompt.id]} of {Path(config.path).name}"
            refused.append(Refused(prompt=prompt, flaw=flaw))
        else:
            found[prompt.id], first_row[prompt.id] = prompt, number
    if not found:
        raise RecipeError(f"{config.path} holds no prompts; expected at least one row")
    return list(found.values()), refused


def _prompt(
    row: Mapping[str, JsonValue], config: FilePrompts | DatasetPrompts, place: str
) -> Prompt:
    absent = [column for column in (config.column, *config.data) if column not in row]
    if absent:
        raise RecipeError(
            f"{place}: no column {absent[0]!r}; the columns are {', '.join(row) or 'none'} "
            "(set prompts.column and prompts.data)"
        )
    value = row[config.column]
    turns = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if not isinstance(turns, list) or not turns or value == "":
        raise RecipeError(
            f"{place}: the column {config.column!r} holds {value!r:.60}; expected a text or a list "
            "of {role, content} turns"
        )
    try:
        return Prompt(
            messages=tuple(Message.model_validate(_turn(turn)) for turn in turns),
            data={column: _without_nan(row[column]) for column in config.data},
            by=Path(config.path).name,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(
            f"{place}: {key or config.column}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def _turn(turn: object) -> object:
    """A turn with its role: the bare texts of MT-Bench and Arena-Hard are the user's turns."""
    if isinstance(turn, str):
        return {"role": "user", "content": turn}
    return {"role": "user", **turn} if isinstance(turn, dict) else turn


def _without_nan(value: JsonValue) -> JsonValue:
    """The value with null for NaN, which is how tables mark a missing number."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return value
