"""Tasks by witness: a hidden list of digits is drawn, then constraints that are true of it.

So every task has an answer, and the distributions differ in three things: how many constraints a
task has, how long the hidden list is, and how uneven the choice of words is. Only
`Generator.random` is drawn from, so that a draw is the same under every version of NumPy.
"""

from bisect import bisect
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np

from eva.playground.domain import MOST_DIGITS, WORDS, Constraint, Constraints, Digits

Choice = TypeVar("Choice")

NAMES = tuple(WORDS)
"""The words by rank."""
SHAPES = ("free", "sorted", "palindrome", "even", "odd", "distinct", "walk")
"""The shapes of a hidden list, all equally likely; each makes some rare word true."""


class Task(NamedTuple):
    """A prompt with the proof that it can be answered."""

    constraints: Constraints
    """What is asked; no word twice."""
    witness: Digits
    """A list that meets all of it."""


class Mix(NamedTuple):
    """A distribution of tasks."""

    counts: dict[int, float]
    """The probability of each number of constraints; sums to 1."""
    lengths: range
    """The lengths of the hidden list, all equally likely."""
    zipf: float
    """The word of rank i has weight i ** -zipf; 0 makes all words equally likely."""


X0 = Mix({1: 0.45, 2: 0.40, 3: 0.15}, range(2, 11), zipf=1.0)
"""The initial prompts: short, with a long tail of rare words."""
HARD = Mix({4: 0.40, 5: 0.35, 6: 0.25}, range(5, 11), zipf=0.0)
"""What the policy should come to master: many constraints, all words alike, longer lists."""
CORPUS = Mix({1: 0.40, 2: 0.35, 3: 0.20, 4: 0.05}, range(2, 11), zipf=0.0)
"""What theta_0 learns from: mostly simple prompts, so that HARD lies nearly outside."""

BROAD = Mix({1: 0.25, 2: 0.25, 3: 0.20, 4: 0.15, 5: 0.10, 6: 0.05}, range(2, 11), zipf=0.0)
"""A corpus that has seen hard prompts too: a theta_0 that starts nearer to HARD."""
CORPORA = {"short": CORPUS, "broad": BROAD}
"""What theta_0 can be made from."""

NOISE = 0.4
"""Share of the demonstrations that are corrupted."""


def pick(options: Sequence[Choice], rng: np.random.Generator) -> Choice:
    """One of the options, all equally likely."""
    return options[int(rng.random() * len(options))]


def weighted(options: Sequence[Choice], edges: Sequence[float], rng: np.random.Generator) -> Choice:
    """One of the options, with probability proportional to its weight; `edges` sums the weights."""
    return options[bisect(edges, rng.random() * edges[-1], hi=len(edges) - 1)]


def draw_task(mix: Mix, rng: np.random.Generator) -> Task:
    """A task of the mix: a witness, then words with values that are true of it, no word twice.

    A word that is true of the witness with no value is drawn again; a value is drawn evenly from
    those that are true.
    """
    witness = draw_witness(mix.lengths, rng)
    count = weighted(list(mix.counts), list(accumulate(mix.counts.values())), rng)
    chosen: dict[str, Constraint] = {}
    while len(chosen) < count:
        name = weighted(NAMES, word_edges(mix.zipf), rng)
        if name in chosen:
            continue
        true = [v for v in WORDS[name].values or (0,) if WORDS[name].holds(witness, v)]
        if true:
            chosen[name] = Constraint(name, pick(true, rng))
    return Task(tuple(chosen.values()), witness)


@cache
def word_edges(zipf: float) -> list[float]:
    """The sums of the words' weights, as `weighted` wants them."""
    return list(accumulate(rank**-zipf for rank in range(1, len(NAMES) + 1)))


def draw_witness(lengths: range, rng: np.random.Generator) -> Digits:
    """A hidden list of one of the `SHAPES`, all its lengths equally likely."""
    length = pick(lengths, rng)
    free = [pick(range(10), rng) for _ in range(length)]
    match pick(SHAPES, rng):
        case "sorted":
            digits = sorted(free, reverse=rng.random() < 0.5)
        case "palindrome":
            half = free[: (length + 1) // 2]
            digits = half + half[: length // 2][::-1]
        case "even":
            digits = [2 * (d // 2) for d in free]
        case "odd":
            digits = [2 * (d // 2) + 1 for d in free]
        case "distinct":
            digits = sorted(range(10), key=lambda _: rng.random())[:length]
        case "walk":
            digits = _walk(free, rng)
        case _:
            digits = free
    return tuple(digits)


def _walk(free: Sequence[int], rng: np.random.Generator) -> list[int]:
    digits = [free[0]]
    for _ in free[1:]:
        digits.append(min(9, max(0, digits[-1] + pick(range(-2, 3), rng))))
    return digits


def draw_demonstration(
    rng: np.random.Generator, corpus: Mix = CORPUS
) -> tuple[Constraints, Digits]:
    """A prompt of the corpus with an answer of mixed quality.

    The answer is the witness; with probability `NOISE` it suffers 1 to 3 random edits.
    """
    constraints, y = draw_task(corpus, rng)
    if rng.random() < NOISE:
        for _ in range(pick((1, 2, 3), rng)):
            y = edited(y, rng)
    return constraints, y


def edited(y: Digits, rng: np.random.Generator) -> Digits:
    """The answer with one digit replaced, inserted or deleted, as far as its length allows."""
    edits = ["replace"]
    edits += ["insert"] * (len(y) < MOST_DIGITS) + ["delete"] * (len(y) > 1)
    edit, place, digit = pick(edits, rng), pick(range(len(y)), rng), pick(range(10), rng)
    if edit == "delete":
        return y[:place] + y[place + 1 :]
    return (*y[:place], digit, *y[place + (edit == "replace") :])
