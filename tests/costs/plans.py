"""Recipes and plans for the tests of what a run costs."""

from eva import recipe as recipes
from eva.config import Recipe
from eva.costs.cards import card
from eva.costs.counts import Lengths, Sizes, Work, work
from eva.costs.hours import Machine
from eva.costs.launch import Launch
from eva.costs.memory import Models, models_of
from eva.costs.plan import Given, Plan, planned
from eva.costs.shapes import shape_of

PROMPTS = {"kind": "dataset", "path": "org/set", "limit": 100}
EVOLVE = {"kind": "evol_instruct", "by": {"kind": "self"}, "children": 4}
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SMALL = "Qwen/Qwen3-0.6B"
SCORER = {"kind": "hf", "model": "Skywork/Skywork-Reward-V2-Qwen3-0.6B"}
API = {
    "kind": "http",
    "model": "judge",
    "urls": ["http://h/v1"],
    "reload": "vllm",
    "price": {"input": 1.0, "output": 10.0},
}
RLOO = {"kind": "rloo", "steps": 5, "batch": 8, "kl": 0.0}
WHOLE = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 200}


def recipe(**parts: object) -> Recipe:
    """100 prompts, 4 responses of at most 200 tokens, 3 rounds of DPO; parts may be replaced."""
    fields = {
        "name": "r",
        "rounds": 3,
        "n": 4,
        "sampling": {"temperature": 0.7, "top_p": 0.9, "max_tokens": 200},
        "policy": {"kind": "hf", "model": SMALL, "rows": 64},
        "prompts": PROMPTS,
        "reward": SCORER,
        "creator": {"evolve": EVOLVE},
        "learner": {"kind": "dpo"},
    }
    return recipes.checked({**fields, **parts}, "test")  # type: ignore[arg-type]


def worked(held_out: int | None = 0, response: float | None = None, **parts: object) -> Work:
    """The work of `recipe(**parts)`, with prompts of 50 tokens."""
    return work(recipe(**parts), Sizes(100, held_out), Lengths(50.0, response))


def models(one: Recipe) -> Models:
    return {part.model: shape_of(part.model) for part in models_of(one) if part.model}


def made(
    one: Recipe,
    gpu: str | None = "H100",
    gpus: int = 1,
    *,
    launch: Launch | None = None,
    speed: float | None = None,
    price: float | None = None,
) -> Plan:
    """The plan of a recipe on some GPUs, with prompts of 50 tokens and at most 100."""
    machine = Machine(gpus, card(gpu) if gpu else None, speed)
    given = Given(Sizes(100, 10), Lengths(50.0), 100.0, machine, launch or Launch(), price)
    return planned(one, models(one), given)
