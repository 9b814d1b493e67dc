"""What the playground is given: prompt sets drawn by seed, two held-out sets, and theta_0.

The held-out sets are the same for everybody. What they ask, in whatever order, is refused in every
other set and in what an evolver writes. One constraint alone can ask only 112 things, and the
held-out set of the initial distribution takes 74 of them. A prompt that is taken is drawn anew, its
number of constraints too, so "x0" holds about 3 % one-constraint prompts where `tasks.X0` says 45.
"""

from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from eva import seeds
from eva.errors import RecipeError
from eva.playground.domain import canonical, parse_chat, render
from eva.playground.tasks import HARD, X0, Mix, Task, draw_task
from eva.records import Message, Prompt

SetName: TypeAlias = Literal["x0", "new", "hard", "eval_x0", "eval_hard"]
"""The sets; see `prompts`."""

HELD_OUT = 400
"""Prompts in each held-out set."""
HELD_OUT_SEED = 0
"""The draw of the held-out sets: another one would be another benchmark."""
FIRST = 256
"""The initial prompts that the set "new" does not repeat: as many as a recipe takes by default."""
PATIENCE = 1000
"""Draws in a row that may bring nothing new before a set counts as exhausted."""


def theta_0_path() -> Path:
    """The folder of the first policy, in Hugging Face format, with its model card."""
    return Path(str(files("eva.playground"))) / "theta_0"


def prompts(set: SetName, n: int, seed: int) -> list[Prompt]:
    """The first n prompts of a set; no two of them ask the same.

    Args:
        set: "x0", the initial prompts; "new", fresh ones of the same distribution, none of them
            among the first 256 of "x0" with the same seed; "hard", fresh ones of the hard
            distribution; "eval_x0" and "eval_hard", the held-out sets of 400.
        n: How many. A longer draw begins with the shorter one.
        seed: Names the draw; the held-out sets ignore it.

    Raises:
        RecipeError: The set has fewer than n prompts.

    Examples:
        >>> [prompt.messages[0].content for prompt in prompts("hard", 2, seed=1)]
        ['first 5 more 2 max 8 step 3', 'up first 0 sum 1 step 3 absent 1']
    """
    return [
        Prompt(messages=(Message(role="user", content=render(task.constraints)),), by="playground")
        for task in tasks(set, n, seed)
    ]


def tasks(set: SetName, n: int, seed: int) -> Sequence[Task]:
    """The tasks behind `prompts`, each with a witness that it can be answered."""
    if set in ("eval_x0", "eval_hard"):
        if n > HELD_OUT:
            raise RecipeError(f"the set {set!r} has {HELD_OUT} prompts; got n = {n}, give no more")
        return held_out(set)[:n]
    taken = {*held_out_forms()}
    if set == "new":
        taken.update(canonical(task.constraints) for task in tasks("x0", FIRST, seed))
    return draw_set(set, HARD if set == "hard" else X0, n, seed, taken)


def banned(messages: Sequence[Message]) -> str | None:
    """A gate: why a chat may not be trained on, or None if no held-out prompt asks the same.

    Examples:
        >>> banned(prompts("eval_hard", 1, seed=0)[0].messages)
        'stands in the held-out set hard'
    """
    constraints = parse_chat(messages)
    if isinstance(constraints, str):
        return None
    name = held_out_forms().get(canonical(constraints))
    return name and f"stands in the held-out set {name}"


@cache
def held_out(set: Literal["eval_x0", "eval_hard"]) -> tuple[Task, ...]:
    """All tasks of a held-out set."""
    mix = HARD if set == "eval_hard" else X0
    return tuple(draw_set(set, mix, HELD_OUT, HELD_OUT_SEED, taken=()))


@cache
def held_out_forms() -> dict[str, str]:
    """The canonical forms of both held-out sets, each with the short name of its set."""
    return {
        canonical(task.constraints): set.removeprefix("eval_")
        for set in ("eval_x0", "eval_hard")
        for task in held_out(set)
    }


def draw_set(set: SetName, mix: Mix, n: int, seed: int, taken: Collection[str]) -> list[Task]:
    """The first n tasks of the mix that ask neither the same as another nor what is taken.

    Args:
        set: Names the draw, and the set in errors.
        mix: The distribution.
        n: How many.
        seed: Names the draw.
        taken: Canonical forms that may not be drawn.

    Raises:
        RecipeError: `PATIENCE` draws in a row brought nothing new.
    """
    rng = seeds.rng(seed, "playground", set)
    forms = {*taken}
    drawn: list[Task] = []
    misses = 0
    while len(drawn) < n:
        task = draw_task(mix, rng)
        form = canonical(task.constraints)
        misses = misses + 1 if form in forms else 0
        if misses == PATIENCE:
            raise RecipeError(
                f"the set {set!r} is exhausted: {PATIENCE} draws in a row brought no new prompt "
                f"after {len(drawn)} of the {n} asked for; ask for fewer"
            )
        if not misses:
            forms.add(form)
            drawn.append(task)
    return drawn
