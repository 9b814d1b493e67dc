"""`eva check`: resolve a recipe, count what it will do, or say how two recipes differ."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from eva import build
from eva import recipe as recipes
from eva.cli.play import AsJson, Overrides
from eva.config import DatasetPrompts, PythonCall, Recipe, RulesReward


def check(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    other: Annotated[
        str | None, typer.Argument(help="Another recipe: print how the two differ.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Validate a recipe and count prompts, samples and tokens; or compare two. Loads no torch."""
    chosen = recipes.load(recipe, overrides or ())
    if other is not None:
        _compare(chosen, recipes.load(other, overrides or ()), as_json)
        return
    here = recipes.found(recipe).parent
    _resolve_code(chosen, here)
    found = counts(chosen)
    if as_json:
        print(json.dumps(found))  # noqa: T201  # the command line prints
        return
    table = Table(
        "what", "at most", title=f"{chosen.name}: the recipe is sound", title_justify="left"
    )
    for name, count in found.items():
        table.add_row(name, "not known before the run" if count is None else f"{count:,}")
    Console().print(table)


def counts(recipe: Recipe) -> dict[str, int | None]:
    """Upper bounds of what a run does; None where a data set must be loaded to know."""
    given = _size(recipe, "prompts")
    if given is None:
        return {"rounds": recipe.rounds, "prompts": None}
    awake = max(0, recipe.rounds - recipe.creator.start) if recipe.creator else 0
    asked = given * recipe.rounds + given * _fresh_rounds(recipe, awake)
    per_parent = 1
    if (
        recipe.creator
        and recipe.creator.evolve
        and not isinstance(recipe.creator.evolve, PythonCall)
    ):
        per_parent = recipe.creator.evolve.children
    parents = max(1, round(given * recipe.creator.select.keep)) if recipe.creator else 0
    evolves = bool(recipe.creator and recipe.creator.evolve)
    found: dict[str, int | None] = {
        "rounds": recipe.rounds,
        "prompts": given,
        "answered prompts": asked,
        "samples": asked * recipe.n,
        "tokens": asked * recipe.n * recipe.sampling.max_tokens,
        "evolved prompts": awake * parents * per_parent if evolves else 0,
    }
    if recipe.evaluate:
        held_out = sum(len(build.prompts(p, recipe.seed)[0]) for p in recipe.evaluate.sets.values())
        times = len({*range(0, recipe.rounds, recipe.evaluate.every), recipe.rounds})
        found["held-out samples"] = held_out * times * (recipe.evaluate.samples + 1)
    return found


def _fresh_rounds(recipe: Recipe, awake: int) -> int:
    """Rounds in which the pool is answered beside the batch; without an evolver it is the batch."""
    if recipe.creator is None or recipe.creator.evolve is None:
        return 0
    reused = recipe.creator.estimate == "last"
    return (1 if recipe.creator.start == 0 and awake else 0) if reused else awake


def _size(recipe: Recipe, key: str) -> int | None:
    part = recipe.prompts
    return None if isinstance(part, DatasetPrompts) else len(build.prompts(part, recipe.seed)[0])


def _resolve_code(recipe: Recipe, here: Path) -> None:
    """Find the functions that the recipe names, so that a typo shows before the run."""
    creator = recipe.creator
    for part in (
        recipe.reward,
        recipe.learner,
        recipe.evaluate.reward if recipe.evaluate else None,
        creator.evolve if creator else None,
        creator.info if creator else None,
    ):
        if isinstance(part, PythonCall | RulesReward):
            build.named(part.call, here)


def _compare(a: Recipe, b: Recipe, as_json: bool) -> None:
    rows = recipes.differences(a, b)
    if as_json:
        print(json.dumps({key: [was, now] for key, was, now in rows}))  # noqa: T201  # see above
        return
    table = Table("key", a.name, b.name)
    for key, was, now in rows:
        table.add_row(key, _shown(was), _shown(now))
    Console().print(table if rows else "the two recipes are the same")


def _shown(value: JsonValue) -> str:
    return "-" if value is None else str(value)
