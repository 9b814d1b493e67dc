"""`eva check`: resolve a recipe and plan it before anything is loaded, or compare two."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, JsonValue
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
from eva.errors import RecipeError
from eva.evolve import evol_instruct, self_instruct
from eva.gates import answerable
from eva.named import named
from eva.parts import PythonCall
from eva.parts.evolvers import EvolInstruct, SelfInstruct
from eva.parts.gates import Answerable, Contamination
from eva.parts.learners import Offline
from eva.parts.prompts import DatasetPrompts, PromptsPart
from eva.parts.rewards import JudgeReward, PairwiseReward, RulesReward
from eva.records import Prompt
from eva.rewards import rubrics

CHARACTERS = 4.0
"""Characters of a token, on average. Our guess; --prompt-tokens says it better."""
TEMPLATE = 10
"""Tokens that a chat template adds to a prompt. Our guess."""
UNREAD = 256
"""Tokens of a prompt that was not read. Our guess."""
MOST = 1e9
"""No number that a person means is larger."""


@dataclass(frozen=True)
class Asked:
    """What the command line says about the run, None where it says nothing."""

    mean_tokens: float | None
    """Of a response."""
    prompt_tokens: float | None
    """Mean of a prompt."""
    prompts: int | None
    """How many a data set holds."""
    gpus: int | None
    """How many the run holds."""
    gpu: str | None
    """Their name."""
    gpu_memory: float | None
    """Of each, in GiB."""
    gpu_price: float | None
    """Of each for an hour."""
    tokens_per_second: float | None
    """That the policy writes."""

    def flags(self) -> dict[str, str | float]:
        """What was said, under the names of the options."""
        said = vars(self).items()
        return {f"--{key.replace('_', '-')}": value for key, value in said if value is not None}

    def machine(self) -> Machine:
        """The GPUs; a memory that is given takes the place of the card's own."""
        found = card(self.gpu) if self.gpu else None
        if self.gpu_memory is not None:
            name = f"{found.name if found else 'GPU'} with {self.gpu_memory:g} GiB"
            found = replace(found or Card(name, 0), name=name, memory=self.gpu_memory)
        return Machine(self.gpus or 1, found, self.tokens_per_second)


def check(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    other: Annotated[
        str | None, typer.Argument(help="Another recipe: print how the two differ.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    mean_tokens: Annotated[
        float | None,
        typer.Option(min=1, help="Mean tokens of a response; default half of max_tokens."),
    ] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean tokens of a prompt; default from its text.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="How many prompts a data set holds.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="How many GPUs the run holds; default 1.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Which, e.g. H100.")] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=1, help="Memory of each, in GiB; of a --gpu, instead of its own."),
    ] = None,
    gpu_price: Annotated[float | None, typer.Option(min=0, help="Of a GPU for an hour.")] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Tokens the policy writes in a second, in all.")
    ] = None,
) -> None:
    """Validate a recipe and plan it: work, memory, hours, money, disk; or compare two recipes."""
    asked = Asked(
        mean_tokens, prompt_tokens, prompts, gpus, gpu, gpu_memory, gpu_price, tokens_per_second
    )
    chosen = recipes.load(recipe, overrides or ())
    if other is not None:
        if asked.flags():
            raise RecipeError(
                f"{', '.join(asked.flags())}: two recipes are compared key by key and not planned; "
                "give one recipe, or leave this out"
            )
        _compare(chosen, recipes.load(other, overrides or ()), as_json)
        return
    _refuse(asked, chosen)
    _resolve(chosen, recipes.found(recipe).parent)
    read = _read(chosen.prompts, chosen.seed)
    size = _bound(chosen.prompts, prompts) if read is None else len(read)
    found = counts(chosen, size)
    plan = None
    if size is not None:
        plan = planned(chosen, _models(chosen), _given(chosen, asked, read, size))
        found |= _totals(plan)
    if as_json:
        print(json.dumps(found | (plan.as_json() if plan else {})))  # noqa: T201  # it prints
        return
    show(chosen, found, plan)


def _refuse(asked: Asked, recipe: Recipe) -> None:
    """Refuse what the options say, where it means nothing for this recipe.

    Raises:
        RecipeError: A number is none or beyond measure, or an option has nothing to act on.
    """
    for name, value in asked.flags().items():
        if not isinstance(value, str) and not (math.isfinite(value) and value <= MOST):
            raise RecipeError(f"{name} is {value:g}; give a number of at most {MOST:g}")
    longest = recipe.sampling.max_tokens
    if asked.mean_tokens is not None and asked.mean_tokens > longest:
        raise RecipeError(
            f"--mean-tokens is {asked.mean_tokens:g}, and sampling.max_tokens is {longest}: no "
            "response is longer; give a smaller mean, or a greater sampling.max_tokens"
        )
    if asked.prompts is not None and not isinstance(recipe.prompts, DatasetPrompts):
        raise RecipeError(
            "--prompts says how many prompts a data set holds, and prompts is of kind "
            f"{recipe.prompts.kind!r}, which is counted itself: leave it out"
        )
    is_timed = asked.gpu is not None or asked.tokens_per_second is not None
    if asked.gpu_price is not None and not is_timed:
        raise RecipeError(
            "--gpu-price is of an hour, and hours need the GPU: name it with --gpu, or give "
            "--tokens-per-second"
        )


def counts(recipe: Recipe, size: int | None) -> dict[str, int | None]:
    """Rounds and prompts; None where only the run itself can know.

    Raises:
        RecipeError: A file is missing, or there are too few prompts.
    """
    if size is not None:
        new = _size(recipe.new_prompts, recipe.seed) if recipe.new_prompts else 0
        if new is not None:
            given.check_enough(recipe, size, new)
    return {"rounds": recipe.rounds, "prompts": size}


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


def _given(recipe: Recipe, asked: Asked, read: Sequence[Prompt] | None, size: int) -> Given:
    """What the plan is made for; `read` are the prompts, None for a data set."""
    machine = asked.machine()
    sets = recipe.evaluate.sets.values() if recipe.evaluate else ()
    sizes = [_size(part, given.HELD_OUT) for part in sets]
    known = [one for one in sizes if one is not None]
    mean, longest = _prompt_lengths(read, asked.prompt_tokens)
    launch = recipe.learner.launch if isinstance(recipe.learner, Offline) else ()
    return Given(
        sizes=Sizes(size, sum(known) if len(known) == len(sizes) else None),
        lengths=Lengths(mean, asked.mean_tokens),
        longest=longest,
        machine=machine,
        launch=launched(launch, Path.cwd(), machine.gpus),
        gpu_price=asked.gpu_price,
    )


def _prompt_lengths(read: Sequence[Prompt] | None, told: float | None) -> tuple[float, float]:
    """Mean and longest prompt, in tokens: by its text, unless said or not read."""
    if read is None:
        mean = told or UNREAD
        return mean, 2 * mean
    found = _tokens(read)
    mean = sum(found) / len(found)
    return (told, told * max(found) / mean) if told else (mean, max(found))


def _tokens(prompts: Sequence[Prompt]) -> list[float]:
    texts = ["".join(message.content for message in prompt.messages) for prompt in prompts]
    return [len(text) / CHARACTERS + TEMPLATE for text in texts] or [UNREAD]


def _models(recipe: Recipe) -> Models:
    """The shapes of the models that a recipe names."""
    names = [part.model for part in models_of(recipe) if part.model]
    return {name: shape_of(model_folder(name)) for name in names}


def _size(part: PromptsPart, seed: int) -> int | None:
    """How many prompts a part holds; of a data set, which only the run loads, what bounds it."""
    read = _read(part, seed)
    return _bound(part) if read is None else len(read)


def _read(part: PromptsPart, seed: int) -> list[Prompt] | None:
    """The prompts of a part; None for a data set, which only the run loads."""
    return None if isinstance(part, DatasetPrompts) else given.prompts(part, seed)[0]


def _bound(part: PromptsPart, told: int | None = None) -> int | None:
    """What bounds a data set: its limit, and how many it is said to hold."""
    assert isinstance(part, DatasetPrompts)
    return min(told, part.limit) if told and part.limit else told or part.limit


def _resolve(recipe: Recipe, here: Path) -> None:
    """Find all that the recipe names and that is on this machine, so that a typo shows now.

    Raises:
        RecipeError: A function, a rubric, an operator or a template cannot be used.
    """
    for part in _parts(recipe):
        match part:
            case PythonCall() | RulesReward():
                named(part.call, here)
            case PairwiseReward() if part.call is not None:
                named(part.call, here)
            case JudgeReward():
                rubrics.load(part.rubric or part.mode, part.mode)
            case Answerable():
                answerable.rubric(part.rubric)
            case Contamination():
                for prompts in part.sets.values():
                    _size(prompts, given.HELD_OUT)
            case EvolInstruct():
                evol_instruct.EvolInstruct(part, None)  # it reads its templates
            case SelfInstruct():
                self_instruct.SelfInstruct(part, None)
            case _:
                pass


def _parts(part: object) -> Iterator[BaseModel]:
    """Every part of a recipe, the recipe itself included."""
    if isinstance(part, BaseModel):
        yield part
        part = dict(part)
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, tuple):
        for inner in part:
            yield from _parts(inner)


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
