"""What a run of the playground trains on, measured with what no creator may know: the answers.

A prompt counts as solvable if one of 50,000 random answers, drawn like the hidden lists of tasks,
meets all of it. That is a lower bound: of the hard held-out prompts, all of which can be answered,
it finds 99 of 100.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eva import seeds
from eva.playground.domain import MOST_DIGITS, Constraint, Constraints, parse_chat
from eva.playground.tasks import draw_witness
from eva.reading import read_run
from eva.records import Prompt

ANSWERS = 50_000
"""Random answers that each prompt is tried on."""


def probe(run: Path) -> dict[int, dict[str, float]]:
    """What the lessons of each round ask: for `probe` of a study.

    Args:
        run: A run directory of the playground.

    Returns:
        By round: "constraints", the mean number in a prompt, and "solvable", the share of prompts
        for which a right answer was found; "unread", the number of prompts that are none of the
        language, where there are some. Where all are, the other two are left out.

    Raises:
        RunDirError: It is no run directory, or a file in it is damaged.
    """
    return {
        played.number: asked([answered.prompt for answered in played.lessons])
        for played in read_run(run).rounds
        if played.lessons
    }


def asked(prompts: list[Prompt]) -> dict[str, float]:
    """Mean number of constraints of prompts, the share that can be answered, and how many say none.

    Examples:
        >>> asked([])
        {}
    """
    found = [parse_chat(prompt.messages) for prompt in prompts]
    read = [constraints for constraints in found if not isinstance(constraints, str)]
    unread = len(found) - len(read)
    asks = {"unread": float(unread)} if unread else {}
    if read:
        asks["constraints"] = float(np.mean([len(constraints) for constraints in read]))
        asks["solvable"] = float(np.mean([is_solvable(constraints) for constraints in read]))
    return asks


def is_solvable(constraints: Constraints) -> bool:
    """Whether a random answer meets all constraints.

    Examples:
        >>> from eva.playground.domain import parse
        >>> is_solvable(parse("even last 6")), is_solvable(parse("even last 7"))
        (True, False)
    """
    return bool(np.logical_and.reduce([_met(constraint) for constraint in constraints]).any())


@cache
def _met(constraint: Constraint) -> NDArray[np.bool_]:
    """Which of the random answers meet a constraint."""
    return np.array([constraint.holds(y) for y in _answers()])


@cache
def _answers() -> list[tuple[int, ...]]:
    rng = seeds.rng(0, "playground", "probe")
    return [draw_witness(range(1, MOST_DIGITS + 1), rng) for _ in range(ANSWERS)]
