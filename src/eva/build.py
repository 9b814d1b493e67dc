"""From a recipe to a game: with `eva.given`, the only module that imports plug-ins.

Names of code are resolved here alone. Heavy libraries are imported inside the functions below, so
that reading a recipe stays light.
"""

from functools import partial
from pathlib import Path
from typing import assert_never

from pydantic import JsonValue

import eva.toy
from eva import adapt
from eva.config import (
    CreatorPart,
    Evaluate,
    HfPolicy,
    InfoName,
    OtherSelect,
    PlaygroundEvolver,
    PlaygroundReward,
    PolicyPart,
    Proportional,
    Recipe,
    RewardPart,
    RulesReward,
    SelectPart,
    ToyEvolver,
    ToyPolicy,
    ToyReward,
)
from eva.config import StreamCreator as StreamPart
from eva.errors import RecipeError
from eva.extras import extra
from eva.formulas import selection
from eva.formulas.informativeness import INFO
from eva.formulas.phases import evolved_share
from eva.game import Creator, Evaluation, Game, Online, StreamCreator
from eva.given import (
    HELD_OUT,
    check_enough,
    context_gates,
    decontamination_gates,
    model_folder,
    new_prompts,
    prompts,
    sifted,
)
from eva.learners import (
    Command,
    Dpo,
    Grpo,
    Ipo,
    Offline,
    OnlineDpo,
    Orpo,
    Rloo,
    Simpo,
    Sppo,
    ToyLearner,
    ToyOnline,
    Trl,
)
from eva.named import called, named
from eva.parts import PythonCall
from eva.protocols import Evolver, Info, Learner, OpenPolicy, Reward, Select, Share
from eva.records import Checkpoint
from eva.seeds import digest


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


def creator(part: CreatorPart, here: Path) -> Creator | StreamCreator:
    """The creator of a recipe."""
    if isinstance(part, StreamPart):
        return StreamCreator(
            info=info(part.info, here),
            select=select(part.select),
            evolver=evolver(part.evolve, here),
            share=share(part),
            keep=part.select.keep,
            buffer=part.buffer,
            max_age=part.max_age,
        )
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


def share(part: StreamPart) -> Share:
    """The phases of an online run."""
    return partial(
        evolved_share,
        warmup=part.warmup,
        mixup=part.mixup,
        evolved=part.evolved,
        bootstrap=part.bootstrap,
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


def learner(recipe: Recipe, here: Path) -> Learner | Online:
    """The solver's update."""
    part, policy = recipe.learner, recipe.policy
    match part:
        case ToyLearner():
            return eva.toy.make_learner(part)
        case ToyOnline():
            return Online(eva.toy.make_online_learner(part), part.steps, part.batch)
        case PythonCall():
            own: Learner = called(part, here)
            return own
    assert isinstance(policy, HfPolicy)  # the recipe was checked
    with extra("hf", f"learner kind {part.kind!r}"):
        match part:
            case Command() | Trl():
                from eva.trainers import command

                return command.make_learner(part, policy)
            case Offline() if part.launch:
                from eva.trainers import command

                return command.make_learner(part, policy)
            case Dpo() | Ipo() | Sppo() | Simpo() | Orpo():
                from eva.learn import trainer

                return trainer.make_learner(part, policy)
            case Rloo() | Grpo() | OnlineDpo():
                from eva.learn import online

                opened = online.make_learner(part, policy, recipe.sampling, recipe.rounds)
                return Online(opened, part.steps, part.batch)
            case _:
                assert_never(part)


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
