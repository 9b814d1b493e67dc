"""The nearest setting that fits: a search over a short ordered list of changes to a recipe.

Changes that cost nothing stand before those that cost time, and those before another method. Of all
settings that fit, the one with the fewest changes is taken, and of those the first in the list.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from pydantic import BaseModel

from eva.config import Recipe
from eva.costs.gpus import needed
from eva.costs.launch import Launch
from eva.costs.memory import Load, Models, Setting, loads
from eva.parts.learners import Grpo, Lora, Offline, Rloo, Update
from eva.parts.policies import HfPolicy, VllmPolicy
from eva.parts.rewards import ClassifierReward

MOST = 3
"""Changes that are made together, at most."""
SHARDS = (2, 4, 8, 16, 32, 64, 128)
"""Processes that share the weights."""
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Of a GPU's memory, for vLLM."""


@dataclass(frozen=True)
class Change:
    """One key of the recipe, or the number of processes, changed."""

    text: str
    """What to write, e.g. "learner.micro_tokens: 4096"."""
    made: Callable[[Recipe, Setting], tuple[Recipe, Setting]]
    """The recipe and the setting with it."""


def nearest(recipe: Recipe, models: Models, setting: Setting) -> tuple[str, ...] | None:
    """The changes by which everything fits; empty if it does, None if no such changes are known.

    GPUs that the recipe takes for granted come first: without them nothing else can be said.
    """
    least = needed(recipe, setting.launch).gpus
    if least > setting.gpus:
        more = nearest(recipe, models, replace(setting, gpus=least))
        return None if more is None else (f"--gpus {least}", *more)
    if not too_large(recipe, models, setting):
        return ()
    knobs = list(_knobs(recipe, setting))
    for number in range(1, MOST + 1):
        for chosen in combinations(knobs, number):
            for changes in product(*chosen):
                tried, there = recipe, setting
                for change in changes:
                    tried, there = change.made(tried, there)
                if not too_large(tried, models, there):
                    return tuple(change.text for change in changes)
    return None


def too_large(recipe: Recipe, models: Models, setting: Setting) -> list[Load]:
    """The loads for which a device is too small."""
    return [load for load in loads(recipe, models, setting) if load.fits is False]


def _knobs(recipe: Recipe, setting: Setting) -> Iterator[Sequence[Change]]:
    """What can be changed, each with its values from the gentlest on."""
    policy, learner = recipe.policy, recipe.learner
    if isinstance(learner, Update):
        yield [_set("learner", "micro_tokens", v) for v in _halves(learner.micro_tokens, 1024)]
    if isinstance(policy, HfPolicy):
        yield [_set("policy", "rows", rows) for rows in _halves(policy.rows, 1)]
    if isinstance(policy, VllmPolicy):
        yield [_set("policy", "memory", share) for share in SHARES if share != policy.memory]
        parallel = [n for n in (2, 4, 8) if policy.tensor_parallel < n <= setting.gpus]
        yield [_set("policy", "tensor_parallel", n) for n in parallel]
    if isinstance(recipe.reward, ClassifierReward):
        yield [_set("reward", "batch_tokens", v) for v in _halves(recipe.reward.batch_tokens, 1024)]
        if setting.gpus > 1:
            yield [_set("reward", "device", "cuda:1")]
    if isinstance(learner, Update) and not learner.gradient_checkpointing:
        yield [_set("learner", "gradient_checkpointing", True)]
    if isinstance(learner, Offline):
        here = setting.launch.processes if setting.launch.is_sharded else 1
        yield [_sharded(n) for n in SHARDS if here < n <= setting.gpus]
    if isinstance(learner, Update) and learner.lora is None:
        yield [_set("learner", "lora", Lora(rank=64, alpha=128.0))]
    if isinstance(learner, Offline):
        yield [_sharded(n) for n in SHARDS if n > setting.gpus]
    if isinstance(learner, Rloo | Grpo) and learner.kl > 0:
        yield [_set("learner", "kl", 0.0)]  # no reference


def _halves(value: int, least: int) -> list[int]:
    """Half the value, a quarter, ... down to `least`."""
    found = []
    while value > least:
        value = max(least, value // 2)
        found.append(value)
    return found


def _set(part: str, key: str, value: object) -> Change:
    def made(recipe: Recipe, setting: Setting) -> tuple[Recipe, Setting]:
        changed: BaseModel = dict(recipe)[part].model_copy(update={key: value})
        return recipe.model_copy(update={part: changed}), setting

    shown = value
    if isinstance(value, Lora):
        shown = f"{{rank: {value.rank}, alpha: {value.alpha:g}}}"
    elif isinstance(value, bool):
        shown = str(value).lower()
    return Change(f"{part}.{key}: {shown}", made)


def _sharded(processes: int) -> Change:
    def made(recipe: Recipe, setting: Setting) -> tuple[Recipe, Setting]:
        return recipe, replace(setting, launch=Launch(processes, is_sharded=True))

    return Change(
        f"learner.launch over {processes} GPUs of this kind with FSDP2 (docs/multi-gpu.md)", made
    )
