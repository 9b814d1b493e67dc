"""Whether arms can be compared at all: all are measured alike, and no two of them are the same.

An arm that changes what measures it would win by construction; an arm that a level or a setting
undoes is another one under a second name.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from pydantic import JsonValue

from eva.config import Recipe
from eva.errors import RecipeError
from eva.findings import Place, told
from eva.recipe import flat
from eva.study.plan import Played, Study, label

Measures: TypeAlias = dict[str, JsonValue]
"""What measures a checkpoint, by dotted key."""


def check_alike(study: Study, cells: Iterable[Played]) -> None:
    """Refuse a study whose arms are not measured alike in a place.

    Factors that are not pooled may change what measures: nothing is compared across their levels.

    Raises:
        RecipeError: Names two cells, and the first key in which they differ.
    """
    first: dict[tuple[str, ...], Played] = {}
    for cell in cells:
        one = first.setdefault(_compared_at(study, cell.place), cell)
        a, b = measures(one.recipe), measures(cell.recipe)
        for key in dict.fromkeys((*a, *b)):
            if a.get(key) != b.get(key):
                raise RecipeError(
                    f"{named(cell)} is measured otherwise than {named(one)}: {key} is "
                    f"{b.get(key)!r} and {a.get(key)!r}; what is compared is measured alike, so "
                    "give both the same (evaluate.reward, where they train on different rewards)"
                )


def measures(recipe: Recipe) -> Measures:
    """What the held-out metrics of a run depend on, but for the checkpoint that is measured."""
    held_out = recipe.evaluate
    if held_out is None:
        return {"evaluate": None}
    told = held_out.model_dump(mode="json", exclude={"every"})
    if held_out.reward is None:
        told["reward"] = recipe.reward.model_dump(mode="json")
    longest = {"sampling.max_tokens": recipe.sampling.max_tokens}
    return {f"evaluate.{key}": value for key, value in flat(told)} | longest


def check_distinct(cells: Iterable[Played]) -> None:
    """Refuse cells that play the same: an arm, a level or a setting that changes nothing there.

    Cells with settings of different labels are compared within their arm and place alone.

    Raises:
        RecipeError: Names two cells that are one.
    """
    known: dict[tuple[str, str], Played] = {}
    for cell in cells:
        plays = cell.recipe.model_dump(mode="json", exclude={"name", "seed"})
        text = json.dumps(plays, sort_keys=True)
        for same in (label(cell.setting), json.dumps([cell.arm, cell.place])):
            one = known.setdefault((same, text), cell)
            if (one.arm, one.place, one.setting) != (cell.arm, cell.place, cell.setting):
                raise RecipeError(
                    f"{named(cell)} plays the same recipe as {named(one)}: what one of them "
                    "changes, an arm or a setting after it sets again; each run is played once"
                )


def named(cell: Played) -> str:
    """A cell without its seed, in words."""
    where = f" with {told(cell.place)}" if cell.place else ""
    return f"the arm {cell.arm!r}{where}" + (f" ({label(cell.setting)})" if cell.setting else "")


def _compared_at(study: Study, place: Mapping[str, str] | Place) -> tuple[str, ...]:
    return tuple(level for factor, level in place.items() if factor not in study.pool)
