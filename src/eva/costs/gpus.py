"""Which GPUs the parts of a recipe stand on, and how many GPUs a run therefore needs."""

from collections.abc import Iterator
from dataclasses import dataclass

from eva.config import Recipe
from eva.costs.cards import index
from eva.costs.launch import Launch, option
from eva.costs.memory import models_of
from eva.parts.policies import HttpPolicy, LanguageModel, Serve, ToyPolicy, VllmPolicy

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""By this environment variable a server is given its GPUs."""


@dataclass(frozen=True)
class Need:
    """What one part of a run takes for granted."""

    gpus: int
    """So many GPUs."""
    who: str
    """The part, in words."""


def needed(recipe: Recipe, launch: Launch) -> Need:
    """The GPUs that a run cannot do without, and all parts that need as many; 0 on a CPU."""
    if isinstance(recipe.policy, ToyPolicy):
        return Need(0, "")
    found = list(dict.fromkeys(_needs(recipe, launch)))
    most = max(need.gpus for need in found)
    return Need(most, " and ".join(need.who for need in found if need.gpus == most))


def _needs(recipe: Recipe, launch: Launch) -> Iterator[Need]:
    """What each part needs."""
    policy = recipe.policy
    assert isinstance(policy, LanguageModel)  # a toy was sorted out
    yield _on(policy.model, policy.device)  # where it learns
    if launch.processes > 1 and index(policy.device) is not None:
        yield Need(launch.processes, f"{launch.processes} processes (learner.launch)")
    for part in models_of(recipe):
        if isinstance(part, HttpPolicy):
            if part.serve is not None:
                count, name = part.serve.count, part.name or part.model
                servers = f"{count} {'servers' if count > 1 else 'server'} of {name} (serve)"
                yield Need(max(_of_server(part.serve, i) for i in range(count)), servers)
        elif isinstance(part, VllmPolicy):
            yield Need(part.tensor_parallel, f"{part.model} (tensor_parallel)")
        else:
            yield _on(part.model or "a function", part.device)


def _on(model: str, device: str) -> Need:
    """A model on one device."""
    place = index(device)
    return Need(0 if place is None else place + 1, f"{model} on {device}")


def _of_server(serve: Serve, number: int) -> int:
    """GPUs that there must be for one server: those that it is given, or by its own options."""
    filled = [word.replace("{index}", str(number)) for word in serve.command]
    given = serve.env.get(VISIBLE, "").replace("{index}", str(number)).split(",")
    numbers = [int(word) for word in given if word.strip().isdigit()]
    if numbers:
        return max(numbers) + 1
    device = option(filled, ("--device",))
    if device is not None and (device == "cpu" or device.startswith("cuda")):
        return _on("", device).gpus
    return int(option(filled, ("--tensor-parallel-size", "-tp")) or 1)
