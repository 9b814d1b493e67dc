"""From a recipe to a game: this folder alone imports plug-ins, and resolves names of code.

Heavy libraries are imported inside functions, so that reading a recipe stays light.
"""

from pathlib import Path
from typing import assert_never

from pydantic import JsonValue

import eva.toy
from eva.build.creators import creator
from eva.build.given import (
    HELD_OUT,
    check_enough,
    context_gates,
    decontamination_gates,
    new_prompts,
    prompts,
    sifted,
)
from eva.build.models import open_policy, theta_0
from eva.build.rewards import reward
from eva.checkpoints import fingerprint
from eva.config import Evaluate, Recipe
from eva.errors import RecipeError
from eva.extras import extra
from eva.game import Evaluation, Game, Online
from eva.named import called
from eva.parts import PythonCall
from eva.parts.learners import (
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
from eva.parts.policies import HfPolicy, LanguageModel
from eva.protocols import Learner, Reward
from eva.recipe import leaves
from eva.seeds import digest

TEXTS = frozenset({"rubric", "template", "templates"})
"""Keys that may name a text file, or a folder of them."""


def game(recipe: Recipe, here: Path, cache: Path | None = None) -> Game:
    """The game of a recipe.

    Args:
        recipe: What to play.
        here: The folder of the recipe, where its code is looked for.
        cache: The folder in which paid answers of servers are kept; None keeps none.

    Raises:
        RecipeError: A file, an extra or a function is missing, or the prompts do not last.
    """
    trained = reward(recipe.reward, here, cache, "reward")
    fits = context_gates(recipe)
    measured = evaluation(recipe, trained, here, cache) if recipe.evaluate else None
    for name, found in measured.sets.items() if measured else ():
        for one in sifted((list(found), []), fits)[1]:
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
    held_out = measured.sets if measured else {}
    return Game(
        prompts=tuple(given),
        refused=(*refused, *repeated),
        new_prompts=tuple(new),
        theta_0=theta_0(recipe.policy),
        open_policy=open_policy(recipe.policy, cache),
        reward=trained,
        learner=learner(recipe, here),
        rounds=recipe.rounds,
        from_scratch=recipe.learn_from == "theta_0",
        seed=recipe.seed,
        n=recipe.n,
        sampling=recipe.sampling,
        chunk=recipe.chunk,
        creator=creator(recipe.creator, held_out, here, cache) if recipe.creator else None,
        gates=gates,
        evaluation=measured,
    )


def inputs(game: Game, recipe: Recipe) -> dict[str, JsonValue]:
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
        **{key: digest(texts(Path(value))) for key, value in text_files(recipe)},
        **{key: fingerprint(Path(value)) for key, value in model_folders(recipe)},
    }


def model_folders(recipe: Recipe) -> list[tuple[str, str]]:
    """The folders of other models than the policy (rewards, judges, writers): key and path."""
    named = [(key, str(value)) for key, value in leaves(recipe) if key.endswith(".model")]
    return [(k, path) for k, path in named if k != "policy.model" and Path(path).is_dir()]


def text_files(recipe: Recipe) -> list[tuple[str, str]]:
    """The texts that the recipe names (rubrics, templates of prompts): dotted key and path."""
    named = [(key, str(value)) for key, value in leaves(recipe) if key.split(".")[-1] in TEXTS]
    return [(key, value) for key, value in named if Path(value).is_absolute()]


def texts(path: Path) -> list[str]:
    """The content of a text file, or of all those in a folder."""
    files = sorted(path.glob("*.md")) if path.is_dir() else [path]
    return [text for file in files for text in (file.name, file.read_text("utf-8"))]


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
    assert isinstance(policy, LanguageModel)  # the recipe was checked, here and below
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

                assert isinstance(policy, HfPolicy)
                opened = online.make_learner(part, policy, recipe.sampling, recipe.rounds)
                return Online(opened, part.steps, part.batch)
            case _:
                assert_never(part)


def evaluation(recipe: Recipe, trained: Reward, here: Path, cache: Path | None) -> Evaluation:
    """What is measured on the way."""
    part = recipe.evaluate
    assert isinstance(part, Evaluate)
    return Evaluation(
        sets={name: tuple(prompts(inner, HELD_OUT)[0]) for name, inner in part.sets.items()},
        reward=reward(part.reward, here, cache, "evaluate.reward") if part.reward else trained,
        max_tokens=recipe.sampling.max_tokens,
        samples=part.samples,
        temperature=part.temperature,
        every=part.every,
        solved_at=part.solved_at,
        monitor=reward(part.monitor.reward, here, cache, "evaluate.monitor.reward")
        if part.monitor
        else None,
        drop=part.monitor.drop if part.monitor else 2.0,
        stop=part.monitor.stop if part.monitor else False,
    )
