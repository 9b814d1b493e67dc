"""The given prompts of a recipe: read, and judged by the same gates as newborn ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import eva.toy
from eva.build.models import model_folder
from eva.config import Recipe
from eva.errors import BackEndError, RecipeError
from eva.extras import extra
from eva.game import Evaluation
from eva.parts.learners import Online, ToyOnline
from eva.parts.policies import HttpPolicy, ToyPolicy, VllmPolicy
from eva.parts.prompts import (
    DatasetPrompts,
    FilePrompts,
    PlaygroundPrompts,
    PromptsPart,
    ToyPrompts,
)
from eva.protocols import Gate
from eva.records import Message, Prompt, Refused
from eva.stages import flaw_of

HELD_OUT = 0
"""The seed of held-out sets that name none: they are the same for every seed of a run."""


def prompts(part: PromptsPart, seed: int) -> tuple[list[Prompt], list[Refused]]:
    """Prompts, and those refused with the reason."""
    if isinstance(part, ToyPrompts):
        return eva.toy.prompts(part, seed), []
    if isinstance(part, PlaygroundPrompts):
        from eva.playground import sets

        return sets.prompts(part.set, part.n, seed if part.seed is None else part.seed), []
    from eva.sources import rows

    return rows.prompts(_rows(part), part)


def _rows(part: FilePrompts | DatasetPrompts) -> Iterator[dict[str, Any]]:
    if part.kind == "jsonl":
        from eva.sources import jsonl

        return jsonl.rows(part)
    with extra("hf", f"prompts of kind {part.kind!r}"):
        if isinstance(part, DatasetPrompts):
            from eva.sources import hub

            return hub.rows(part)
        from eva.sources import parquet

        return parquet.rows(part)


Sifted: TypeAlias = tuple[list[Prompt], list[Refused]]
"""Prompts that can be used, and those that cannot with the reason."""


def sifted(given: Sifted, gates: Sequence[Gate]) -> Sifted:
    """The prompts that pass all gates, and the refused ones, those refused before included."""
    fits, refused = [], list(given[1])
    for prompt in given[0]:
        flaw = flaw_of(prompt.messages, gates)
        if flaw is None:
            fits.append(prompt)
        else:
            refused.append(Refused(prompt=prompt, flaw=flaw))
    return fits, refused


def new_prompts(recipe: Recipe, given: Sequence[Prompt], gates: Sequence[Gate]) -> Sifted:
    """The new prompts of a recipe, none of which stands in X_0."""
    if recipe.new_prompts is None:
        return [], []
    known = {prompt.messages for prompt in given}

    def is_new(messages: Sequence[Message]) -> str | None:
        return "it stands in `prompts` already" if tuple(messages) in known else None

    return sifted(prompts(recipe.new_prompts, recipe.seed), (*gates, is_new))


def check_enough(recipe: Recipe, given: int, new: int) -> None:
    """Refuse a recipe whose prompts do not last for its rounds, or for one mini-batch.

    Raises:
        RecipeError: There are too few.
    """
    needed = given * (recipe.rounds - 1)
    if recipe.new_prompts is not None and new < needed:
        raise RecipeError(
            f"new_prompts has {new} prompts that can be used; {recipe.rounds} rounds of {given} "
            f"prompts, the first one on `prompts`, need {needed}: give more, or fewer rounds"
        )
    if isinstance(recipe.learner, Online | ToyOnline) and recipe.learner.batch > given:
        raise RecipeError(
            f"learner.batch is {recipe.learner.batch}, and prompts has {given} that can be used: a "
            "mini-batch holds each prompt at most once; give more prompts or a smaller batch"
        )


# ---------------------------------------------------------------- gates


def context_gates(recipe: Recipe) -> tuple[Gate, ...]:
    """Refuses what the policy's context cannot hold."""
    policy, longest = recipe.policy, recipe.sampling.max_tokens
    if isinstance(policy, ToyPolicy):
        return ()
    if isinstance(policy, HttpPolicy) and not Path(model_folder(policy.model)).is_dir():
        return ()  # its servers judge
    with extra("hf", "policy kind 'hf'"):
        from eva.backends import hf

    try:
        limit = policy.context if isinstance(policy, VllmPolicy) else None
        return (hf.context_gate(model_folder(policy.model), longest, policy.revision, limit),)
    except BackEndError as error:
        raise RecipeError(f"policy.model: {error}") from error


def decontamination_gates(recipe: Recipe, measured: Evaluation | None) -> tuple[Gate, ...]:
    """Refuses what stands in a held-out set, for given, new and newborn prompts alike."""
    if recipe.evaluate is None or measured is None:
        return ()
    held_out = {prompt.messages: name for name, found in measured.sets.items() for prompt in found}

    def stands_apart(messages: Sequence[Message]) -> str | None:
        name = held_out.get(tuple(messages))
        return f"it stands in the held-out set {name}" if name else None

    if not any(isinstance(part, PlaygroundPrompts) for part in recipe.evaluate.sets.values()):
        return (stands_apart,)
    from eva.playground.sets import banned

    return (stands_apart, banned)
