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
from eva.config import DatasetPrompts, PromptsPart, PythonCall, Recipe, RulesReward
from eva.named import named


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
    """Upper bounds of what a run does; None where only the run itself can know.

    Raises:
        RecipeError: A file is missing, or there are too few prompts.
    """
    given = _size(recipe.prompts, recipe.seed)
    if given is None:
        return {"rounds": recipe.rounds, "prompts": None}
    new = _size(recipe.new_prompts, recipe.seed) if recipe.new_prompts else 0
    if recipe.new_prompts and new is not None:
        build.check_enough(recipe, given, new)
    awake = max(0, recipe.rounds - recipe.creator.start) if recipe.creator else 0
    asked = given * (recipe.rounds + _fresh_rounds(recipe, awake))
    return {
        "rounds": recipe.rounds,
        "prompts": given,
        "answered prompts": asked,
        "samples": asked * recipe.n,
        "tokens": asked * recipe.n * recipe.sampling.max_tokens,
        "evolved prompts": _evolved(recipe, given, awake),
        "held-out samples": _held_out(recipe),
    }


def _evolved(recipe: Recipe, given: int, awake: int) -> int | None:
    if recipe.creator is None or recipe.creator.evolve is None:
        return 0
    if isinstance(recipe.creator.evolve, PythonCall):
        return None
    parents = max(1, round(given * recipe.creator.select.keep))
    return awake * parents * recipe.creator.evolve.children


def _held_out(recipe: Recipe) -> int | None:
    if recipe.evaluate is None:
        return 0
    sizes = [_size(part, build.HELD_OUT) for part in recipe.evaluate.sets.values()]
    times = len({*range(0, recipe.rounds, recipe.evaluate.every), recipe.rounds})
    known = [size for size in sizes if size is not None]
    is_known = len(known) == len(sizes)
    return sum(known) * times * (recipe.evaluate.samples + 1) if is_known else None


def _fresh_rounds(recipe: Recipe, awake: int) -> int:
    """Rounds in which the pool is answered beside the batch; without an evolver it is the batch."""
    if recipe.creator is None or recipe.creator.evolve is None:
        return 0
    reused = recipe.creator.estimate == "last"
    return (1 if recipe.creator.start == 0 and awake else 0) if reused else awake


def _size(part: PromptsPart, seed: int) -> int | None:
    """How many prompts a part holds; None for a data set, which only the run loads."""
    return None if isinstance(part, DatasetPrompts) else len(build.prompts(part, seed)[0])


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
            named(part.call, here)


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
