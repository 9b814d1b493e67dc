"""From a recipe to a game: the only module that imports plug-ins and resolves names of code.

Heavy libraries are imported inside the functions below, so that reading a recipe stays light.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, assert_never

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
from eva.errors import RecipeError
from eva.formulas import selection
from eva.formulas.informativeness import INFO
from eva.game import Creator, Evaluation, Game
from eva.protocols import Evolver, Gate, Info, Learner, OpenPolicy, Reward, Select
from eva.recipe import nearest
from eva.records import Checkpoint, Message, Prompt, Refused


def game(recipe: Recipe, here: Path) -> Game:
    """The game of a recipe; `here` is the folder of the recipe, where its code is looked for.

    Raises:
        RecipeError: A file, an extra or a function of the recipe is missing, or no prompt is left.
    """
    given, refused = prompts(recipe.prompts, recipe.seed)
    gates = context_gates(recipe)
    fits, too_long = _sifted(given, gates)
    new, _ = prompts(recipe.new_prompts, recipe.seed) if recipe.new_prompts else ([], [])
    new, _ = _sifted(new, gates)
    _check_enough(recipe, len(fits), len(new))
    trained = reward(recipe.reward, here)
    return Game(
        prompts=tuple(fits),
        refused=(*refused, *too_long),
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
        gates=(*gates, *decontamination_gates(recipe)),
        evaluation=evaluation(recipe, trained, here) if recipe.evaluate else None,
    )


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


def _sifted(given: Sequence[Prompt], gates: Sequence[Gate]) -> tuple[list[Prompt], list[Refused]]:
    fits, refused = [], []
    for prompt in given:
        flaw = next((flaw for gate in gates if (flaw := gate(prompt.messages))), None)
        if flaw is None:
            fits.append(prompt)
        else:
            refused.append(Refused(prompt=prompt, flaw=flaw))
    return fits, refused


def _check_enough(recipe: Recipe, given: int, new: int) -> None:
    if not given:
        raise RecipeError(
            "no prompt is left to train on: all are longer than the policy's context less "
            f"sampling.max_tokens = {recipe.sampling.max_tokens}; lower it or shorten the prompts"
        )
    needed = given * (recipe.rounds - 1)
    if recipe.new_prompts is not None and new < needed:
        raise RecipeError(
            f"new_prompts has {new} prompts; {recipe.rounds} rounds of {given} prompts, the first "
            f"one on `prompts`, need {needed}: give more, or fewer rounds"
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
    return (hf.context_gate(model_folder(policy.model), longest, policy.revision),)


def decontamination_gates(recipe: Recipe) -> tuple[Gate, ...]:
    """Refuses what stands in a held-out set of the recipe."""
    if recipe.evaluate is None:
        return ()
    parts = recipe.evaluate.sets.items()
    if any(isinstance(part, PlaygroundPrompts) for _, part in parts):
        from eva.playground.sets import banned

        return (banned,)
    held_out = {p.messages: name for name, part in parts for p in prompts(part, recipe.seed)[0]}

    def stands_apart(messages: Sequence[Message]) -> str | None:
        name = held_out.get(tuple(messages))
        return f"it stands in the held-out set {name}" if name else None

    return (stands_apart,)


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
            if not isinstance(recipe.policy, HfPolicy):
                raise RecipeError(
                    f"learner kind 'dpo' needs a policy of kind 'hf', not {recipe.policy.kind!r}"
                )
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
        sets={name: tuple(prompts(inner, recipe.seed)[0]) for name, inner in part.sets.items()},
        reward=reward(part.reward, here) if part.reward else trained,
        max_tokens=recipe.sampling.max_tokens,
        samples=part.samples,
        temperature=part.temperature,
        every=part.every,
        solved_at=part.solved_at,
    )


# ---------------------------------------------------------------- names of code


def called(part: PythonCall, here: Path) -> Any:
    """Your own function, or what it returns for the arguments that the recipe gives."""
    function = named(part.call, here)
    if not part.args:
        return function
    try:
        return function(**part.args)
    except TypeError as error:
        raise RecipeError(f"{part.call} cannot be called with {part.args}: {error}") from error


def named(call: str, here: Path) -> Callable[..., Any]:
    """The function that "module:function" names, looked for beside the recipe too.

    Raises:
        RecipeError: There is no such module or function, or it is not callable.
    """
    module_name, _, path = call.partition(":")
    for folder in (str(Path.cwd()), str(here.resolve())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise RecipeError(
            f"{call}: the module {module_name!r} cannot be imported "
            f"({type(error).__name__}: {error}); it is looked for in {here.resolve()}, in the "
            "working directory and among the installed packages"
        ) from error
    for name in path.split("."):
        known = vars(found)
        if name not in known:
            public = [key for key in known if not key.startswith("_")]
            raise RecipeError(f"{call}: there is no {name!r}; {nearest(name, public)}")
        found = known[name]
    if not callable(found):
        raise RecipeError(f"{call} is a {type(found).__name__}; expected a function")
    return found  # type: ignore[no-any-return]  # a plug-in's type is checked at its seam


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
