"""`eva check`: resolve a recipe and plan it before anything is loaded, or compare two."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from eva import recipe as recipes
from eva.build import given
from eva.build.models import model_folder
from eva.cli.play import AsJson, Overrides
from eva.cli.tables import show
from eva.config import Recipe
from eva.costs.cards import Card, card
from eva.costs.counts import Lengths, Sizes
from eva.costs.hours import Machine
from eva.costs.launch import launched
from eva.costs.memory import Models, models_of
from eva.costs.plan import Given, Plan, planned
from eva.costs.shapes import shape_of
from eva.named import named
from eva.parts import PythonCall
from eva.parts.learners import Offline
from eva.parts.prompts import DatasetPrompts, PromptsPart
from eva.parts.rewards import RulesReward
from eva.records import Prompt

CHARACTERS = 4.0
"""Characters of a token, on average. Our guess; --prompt-tokens says it better."""
TEMPLATE = 10
"""Tokens that a chat template adds to a prompt. Our guess."""
UNREAD = 256
"""Tokens of a prompt that was not read. Our guess."""


def check(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    other: Annotated[
        str | None, typer.Argument(help="Another recipe: print how the two differ.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    mean_tokens: Annotated[
        float | None, typer.Option(help="Mean tokens of a response; default half of max_tokens.")
    ] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(help="Mean tokens of a prompt; default from its text.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="How many prompts a data set holds.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs the run holds.")] = 1,
    gpu: Annotated[str | None, typer.Option(help="Which, e.g. H100.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="Memory of each, in GiB, instead of its name.")
    ] = None,
    gpu_price: Annotated[float | None, typer.Option(min=0, help="Of a GPU for an hour.")] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Tokens the policy writes in a second, in all.")
    ] = None,
) -> None:
    """Validate a recipe and plan it: work, memory, hours, money, disk; or compare two recipes."""
    chosen = recipes.load(recipe, overrides or ())
    if other is not None:
        _compare(chosen, recipes.load(other, overrides or ()), as_json)
        return
    _resolve_code(chosen, recipes.found(recipe).parent)
    found = counts(chosen, prompts)
    plan = None
    if found["prompts"] is not None:
        known = card(gpu) if gpu else Card("GPU", gpu_memory) if gpu_memory else None
        machine = Machine(gpus, known, tokens_per_second)
        lengths = (mean_tokens, prompt_tokens)
        made_for = _given(chosen, machine, lengths, prompts, gpu_price)
        plan = planned(chosen, _models(chosen), made_for)
        found |= _totals(plan)
    if as_json:
        print(json.dumps(found | (plan.as_json() if plan else {})))  # noqa: T201  # it prints
        return
    show(chosen, found, plan)


def counts(recipe: Recipe, size: int | None = None) -> dict[str, int | None]:
    """How many prompts there are; None where only the run itself can know.

    Raises:
        RecipeError: A file is missing, or there are too few prompts.
    """
    prompts = _size(recipe.prompts, recipe.seed, size)
    if prompts is not None:
        new = _size(recipe.new_prompts, recipe.seed) if recipe.new_prompts else 0
        if new is not None:
            given.check_enough(recipe, prompts, new)
    return {"rounds": recipe.rounds, "prompts": prompts}


def _totals(plan: Plan) -> dict[str, int | None]:
    """Upper bounds of what the run does; None where only the run itself can know."""
    work = plan.work
    return {
        "answered prompts": work.answered,
        "samples": work.samples,
        "tokens": work.tokens,
        "evolved prompts": work.evolved,
        "held-out samples": work.held_out,
    }


def _given(
    recipe: Recipe,
    machine: Machine,
    lengths: tuple[float | None, float | None],
    prompts: int | None,
    gpu_price: float | None,
) -> Given:
    """What the plan is made for."""
    size = _size(recipe.prompts, recipe.seed, prompts)
    assert size is not None
    sets = recipe.evaluate.sets.values() if recipe.evaluate else ()
    sizes = [_size(part, given.HELD_OUT) for part in sets]
    known = [one for one in sizes if one is not None]
    mean, longest = _prompt_lengths(recipe, lengths[1])
    launch = recipe.learner.launch if isinstance(recipe.learner, Offline) else ()
    return Given(
        sizes=Sizes(size, sum(known) if len(known) == len(sizes) else None),
        lengths=Lengths(mean, lengths[0]),
        longest=longest,
        machine=machine,
        launch=launched(launch, Path.cwd(), machine.gpus),
        gpu_price=gpu_price,
    )


def _prompt_lengths(recipe: Recipe, told: float | None) -> tuple[float, float]:
    """Mean and longest prompt, in tokens: by its text, unless said or not read."""
    if isinstance(recipe.prompts, DatasetPrompts):
        mean = told or UNREAD
        return mean, 2 * mean
    found = _tokens(given.prompts(recipe.prompts, recipe.seed)[0])
    mean = sum(found) / len(found)
    return (told, told * max(found) / mean) if told else (mean, max(found))


def _tokens(prompts: Sequence[Prompt]) -> list[float]:
    texts = ["".join(message.content for message in prompt.messages) for prompt in prompts]
    return [len(text) / CHARACTERS + TEMPLATE for text in texts] or [UNREAD]


def _models(recipe: Recipe) -> Models:
    """The shapes of the models that a recipe names."""
    names = [part.model for part in models_of(recipe) if part.model]
    return {name: shape_of(model_folder(name)) for name in names}


def _size(part: PromptsPart, seed: int, told: int | None = None) -> int | None:
    """How many prompts a part holds; of a data set, which only the run loads, what bounds it."""
    if isinstance(part, DatasetPrompts):
        return told or part.limit
    return len(given.prompts(part, seed)[0])


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
