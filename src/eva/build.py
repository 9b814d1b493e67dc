"""From a recipe to a game: the only module that imports plug-ins and resolves names of code.

Heavy libraries are imported inside the functions below, so that reading a recipe stays light.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, assert_never

from pydantic import JsonValue

import eva.toy
from eva import adapt
from eva.config import (
    Creator as CreatorPart,
)
from eva.config import (
    DatasetPrompts,
    DpoLearner,
    Evaluate,
    FilePrompts,
    HfPolicy,
    InfoName,
    OtherSelect,
    PlaygroundEvolver,
    PlaygroundPrompts,
    PlaygroundReward,
    PolicyPart,
    PromptsPart,
    Proportional,
    PythonCall,
    Recipe,
    RewardPart,
    RulesReward,
    SelectPart,
    ToyEvolver,
    ToyLearner,
    ToyPolicy,
    ToyPrompts,
    ToyReward,
)
from eva.errors import BackEndError, RecipeError
from eva.formulas import selection
from eva.formulas.informativeness import INFO
from eva.game import Creator, Evaluation, Game
from eva.named import called, named
from eva.protocols import Evolver, Gate, Info, Learner, OpenPolicy, Reward, Select
from eva.records import Checkpoint, Message, Prompt, Refused
from eva.seeds import digest
from eva.stages import flaw_of

HELD_OUT = 0
"""The seed of held-out sets that name none: they are the same for every seed of a run."""


def game(recipe: Recipe, here: Path) -> Game:
    """The game of a recipe; `here` is the folder of the recipe, where its code is looked for.

    Raises:
        RecipeError: A file, an extra or a function is missing, or the prompts do not last.
    """
    trained = reward(recipe.reward, here)
    fits = context_gates(recipe)
    measured = evaluation(recipe, trained, here) if recipe.evaluate else None
    for name, held_out in measured.sets.items() if measured else ():
        for one in sifted((list(held_out), []), fits)[1]:
            raise RecipeError(f"evaluate.sets.{name}: prompt {one.prompt.id}: {one.flaw}")
    gates = (*fits, *decontamination_gates(recipe, measured))
    given, refused = sifted(prompts(recipe.prompts, recipe.seed), gates)
    new, repeated = new_prompts(recipe, given, gates)
    if not given:
        raise RecipeError(
            f"no prompt is left to train on: all {len(refused)} were refused, the first because "
            f"{refused[0].flaw}; give others (a context holds the prompt and sampling.max_tokens)"
        )
    check_enough(recipe, len(given), len(new))
    return Game(
        prompts=tuple(given),
        refused=(*refused, *repeated),
        new_prompts=tuple(new),
        theta_0=theta_0(recipe.policy),
        open_policy=open_policy(recipe.policy),
        reward=trained,
        learner=learner(recipe, here),
        rounds=recipe.rounds,
        seed=recipe.seed,
        n=recipe.n,
        sampling=recipe.sampling,
        chunk=recipe.chunk,
        creator=creator(recipe.creator, here) if recipe.creator else None,
        gates=gates,
        evaluation=measured,
    )


def inputs(game: Game) -> dict[str, JsonValue]:
    """What a run reads from outside, as digests: a run goes on only with the same."""
    held_out = game.evaluation.sets if game.evaluation else {}
    read = {
        "prompts": game.prompts,
        "new_prompts": game.new_prompts,
        **{f"evaluate.sets.{name}": found for name, found in held_out.items()},
    }
    return {
        "policy": game.theta_0.id,
        **{name: digest(prompt.id for prompt in found) for name, found in read.items()},
    }


# ---------------------------------------------------------------- prompts


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
    """Refuse a recipe whose new prompts do not last for its rounds.

    Raises:
        RecipeError: There are too few.
    """
    needed = given * (recipe.rounds - 1)
    if recipe.new_prompts is not None and new < needed:
        raise RecipeError(
            f"new_prompts has {new} prompts that can be used; {recipe.rounds} rounds of {given} "
            f"prompts, the first one on `prompts`, need {needed}: give more, or fewer rounds"
        )


# ---------------------------------------------------------------- policy


def theta_0(part: PolicyPart) -> Checkpoint:
    """The checkpoint that the game starts from."""
    if isinstance(part, ToyPolicy):
        return Checkpoint(uri=f"toy:{part.skill}", id=f"skill-{part.skill:.12g}")
    folder = model_folder(part.model)
    if not Path(folder).is_dir():
        return Checkpoint(uri=folder, id=f"{folder}@{part.revision or 'main'}")
    from eva.checkpoints import fingerprint

    return Checkpoint(uri=folder, id=fingerprint(Path(folder)))


def model_folder(model: str) -> str:
    """The folder or hub id of a model; "playground" is the one that ships with eva."""
    if model != "playground":
        return str(Path(model).resolve()) if Path(model).is_dir() else model
    from eva.playground.sets import theta_0_path

    return str(theta_0_path())


def open_policy(part: PolicyPart) -> OpenPolicy:
    """What opens a checkpoint as a policy."""
    if isinstance(part, ToyPolicy):
        return eva.toy.open_policy
    with extra("hf", "policy kind 'hf'"):
        import torch

        from eva.backends import hf

    if part.threads is not None:
        torch.set_num_threads(part.threads)
    return partial(hf.open_policy, config=part)


def context_gates(recipe: Recipe) -> tuple[Gate, ...]:
    """Refuses what the policy's context cannot hold."""
    if isinstance(recipe.policy, ToyPolicy):
        return ()
    with extra("hf", "policy kind 'hf'"):
        from eva.backends import hf

    policy, longest = recipe.policy, recipe.sampling.max_tokens
    try:
        return (hf.context_gate(model_folder(policy.model), longest, policy.revision),)
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


# ---------------------------------------------------------------- reward, creator, learner


def reward(part: RewardPart, here: Path) -> Reward:
    """The reward of a part of a recipe."""
    match part:
        case ToyReward():
            return eva.toy.reward
        case PlaygroundReward():
            from eva.playground import verify

            return verify.make_reward(part)
        case RulesReward():
            return adapt.per_response(named(part.call, here))
        case PythonCall():
            own: Reward = called(part, here)
            return own
        case _:
            assert_never(part)


def creator(part: CreatorPart, here: Path) -> Creator:
    """The creator of a recipe."""
    return Creator(
        info=info(part.info, here),
        select=select(part.select),
        evolver=evolver(part.evolve, here) if part.evolve else None,
        keep=part.select.keep,
        fresh=part.fresh,
        replay=part.replay,
        estimate=part.estimate,
        start=part.start,
    )


def info(part: InfoName | PythonCall, here: Path) -> Info:
    """The informativeness metric of a name or of your own function."""
    return called(part, here) if isinstance(part, PythonCall) else INFO[part]


def select(part: SelectPart) -> Select:
    """How parents are drawn."""
    if isinstance(part, Proportional):
        return partial(selection.proportional, floor=part.floor)
    assert isinstance(part, OtherSelect)
    return {
        "rank": selection.rank,
        "greedy": selection.greedy,
        "stratified": selection.stratified,
        "uniform": selection.uniform,
    }[part.kind]


def evolver(part: PlaygroundEvolver | ToyEvolver | PythonCall, here: Path) -> Evolver:
    """Who rewrites the parents."""
    match part:
        case ToyEvolver():
            return eva.toy.make_evolver(part)
        case PlaygroundEvolver():
            from eva.playground import evolve

            return evolve.make_evolver(part)
        case PythonCall():
            own: Evolver = called(part, here)
            return own
        case _:
            assert_never(part)


def learner(recipe: Recipe, here: Path) -> Learner:
    """The solver's update."""
    match recipe.learner:
        case ToyLearner() as part:
            return eva.toy.make_learner(part)
        case PythonCall() as part:
            own: Learner = called(part, here)
            return own
        case DpoLearner() as part:
            assert isinstance(recipe.policy, HfPolicy)  # the recipe was checked
            with extra("hf", "learner kind 'dpo'"):
                from eva.learn import trainer

            return trainer.make_learner(part, recipe.policy)
        case _:
            assert_never(recipe.learner)


def evaluation(recipe: Recipe, trained: Reward, here: Path) -> Evaluation:
    """What is measured on the way."""
    part = recipe.evaluate
    assert isinstance(part, Evaluate)
    return Evaluation(
        sets={name: tuple(prompts(inner, HELD_OUT)[0]) for name, inner in part.sets.items()},
        reward=reward(part.reward, here) if part.reward else trained,
        max_tokens=recipe.sampling.max_tokens,
        samples=part.samples,
        temperature=part.temperature,
        every=part.every,
        solved_at=part.solved_at,
    )


# ---------------------------------------------------------------- extras


@contextmanager
def extra(name: str, who: str) -> Iterator[None]:
    """Say which extra is missing instead of a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "eva":
            raise
        raise RecipeError(
            f"{who} needs {error.name}, which is not installed: pip install 'eva-rlhf[{name}]'"
        ) from error
