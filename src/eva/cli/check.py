"""`eva check`: resolve a recipe, count what it will do, or say how two recipes differ."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from eva import build, given
from eva import recipe as recipes
from eva.cli.play import AsJson, Overrides
from eva.config import Creator, DatasetPrompts, PromptsPart, Recipe, RulesReward, StreamCreator
from eva.formulas.phases import evolved_of, parents_of
from eva.learners import Online, ToyOnline
from eva.named import named
from eva.parts import PythonCall


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
    size = _size(recipe.prompts, recipe.seed)
    if size is None:
        return {"rounds": recipe.rounds, "prompts": None}
    new = _size(recipe.new_prompts, recipe.seed) if recipe.new_prompts else 0
    if recipe.new_prompts is None or new is not None:
        given.check_enough(recipe, size, new or 0)
    asked = _asked(recipe, size)
    return {
        "rounds": recipe.rounds,
        "prompts": size,
        "answered prompts": asked,
        "samples": asked * recipe.n,
        "tokens": asked * recipe.n * recipe.sampling.max_tokens,
        "evolved prompts": _evolved(recipe, size),
        "held-out samples": _held_out(recipe),
    }


def _asked(recipe: Recipe, size: int) -> int:
    """Prompts that are answered: mini-batches online, else the pool and, beside it, the batch."""
    if isinstance(recipe.learner, Online | ToyOnline):
        return recipe.rounds * recipe.learner.steps * recipe.learner.batch
    return size * (recipe.rounds + _fresh_rounds(recipe))


def _evolved(recipe: Recipe, size: int) -> int | None:
    creator = recipe.creator
    if creator is None or creator.evolve is None:
        return 0
    if isinstance(creator.evolve, PythonCall):
        return None
    if isinstance(creator, StreamCreator):
        return _parents_online(recipe, creator) * creator.evolve.children
    parents = max(1, round(size * creator.select.keep))
    return _awake(recipe, creator) * parents * creator.evolve.children


def _parents_online(recipe: Recipe, creator: StreamCreator) -> int:
    """Parents that are drawn, one mini-batch ahead, for all mini-batches but the first."""
    assert isinstance(recipe.learner, Online | ToyOnline)  # the recipe was checked
    planned, batch = recipe.rounds * recipe.learner.steps, recipe.learner.batch
    share = build.share(creator)
    return sum(
        parents_of(creator.select.keep, evolved_of(share(step, planned), batch))
        for step in range(1, planned)
    )


def _held_out(recipe: Recipe) -> int | None:
    if recipe.evaluate is None:
        return 0
    sizes = [_size(part, given.HELD_OUT) for part in recipe.evaluate.sets.values()]
    times = len({*range(0, recipe.rounds, recipe.evaluate.every), recipe.rounds})
    known = [size for size in sizes if size is not None]
    is_known = len(known) == len(sizes)
    return sum(known) * times * (recipe.evaluate.samples + 1) if is_known else None


def _fresh_rounds(recipe: Recipe) -> int:
    """Rounds in which the pool is answered beside the batch; without an evolver it is the batch."""
    creator = recipe.creator
    if not isinstance(creator, Creator) or creator.evolve is None:
        return 0
    awake = _awake(recipe, creator)
    reused = creator.estimate == "last"
    return (1 if creator.start == 0 and awake else 0) if reused else awake


def _awake(recipe: Recipe, creator: Creator) -> int:
    """Rounds in which the creator is awake."""
    return max(0, recipe.rounds - creator.start)


def _size(part: PromptsPart, seed: int) -> int | None:
    """How many prompts a part holds; None for a data set, which only the run loads."""
    return None if isinstance(part, DatasetPrompts) else len(given.prompts(part, seed)[0])


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
