"""The constraint language: what a prompt asks, what an answer is, and how well one meets the other.

A prompt states constraints on a list of digits, "last 6 more 4 even"; an answer is 1 to 10 digits,
"8 4 2 6". Any list that meets the constraints is right, so one prompt has many right answers, and
the share of constraints that hold is a reward that needs no judge: instruction following in small.
The table `WORDS` is the whole language. It is our choice; the paper has no such domain.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from eva.records import Message

Digits: TypeAlias = tuple[int, ...]
"""An answer y: 1 to 10 integers, each in [0, 9]."""

MOST_DIGITS = 10
"""Digits in the longest answer."""
MOST_CONSTRAINTS = 10
"""Constraints in the longest prompt."""


class Word(NamedTuple):
    """One word of the language."""

    meaning: str
    """What it asks, in plain words; v, n and k stand for the value."""
    holds: Callable[[Digits, int], bool]
    """Whether an answer does what the word asks with this value."""
    values: range = range(0)
    """The values it takes, none of which every answer meets; empty for a word without a value."""
    harder: int = 0
    """The direction in which a value asks for more: +1, -1, or 0 where there is none."""


ANY = range(10)

WORDS: dict[str, Word] = {
    "len": Word("exactly n digits", lambda y, n: len(y) == n, range(1, 10), +1),
    "has": Word("v occurs", lambda y, v: v in y, ANY),
    "no": Word("v does not occur", lambda y, v: v not in y, ANY),
    "first": Word("the first digit is v", lambda y, v: y[0] == v, ANY),
    "last": Word("the last digit is v", lambda y, v: y[-1] == v, ANY),
    "up": Word("no digit is below the one before", lambda y, _: long(y) and rises(y)),
    "down": Word("no digit is above the one before", lambda y, _: long(y) and rises(y[::-1])),
    "twice": Word("v occurs exactly twice", lambda y, v: y.count(v) == 2, ANY),
    "distinct": Word("no digit occurs twice", lambda y, _: long(y) and len(set(y)) == len(y)),
    "pal": Word("reads the same backwards", lambda y, _: long(y) and y == y[::-1]),
    "even": Word("every digit is even", lambda y, _: all(d % 2 == 0 for d in y)),
    "odd": Word("every digit is odd", lambda y, _: all(d % 2 == 1 for d in y)),
    "min": Word("every digit is at least v", lambda y, v: min(y) >= v, range(1, 10), +1),
    "max": Word("every digit is at most v", lambda y, v: max(y) <= v, range(9), -1),
    "sum": Word("the digits sum to 10 k or more", lambda y, k: sum(y) >= 10 * k, range(1, 10), +1),
    "ends": Word("the first digit is the last digit", lambda y, _: long(y) and y[0] == y[-1]),
    "absent": Word("neither v nor 9 - v occurs", lambda y, v: not {v, 9 - v} & {*y}, range(5)),
    "peak": Word("a digit is above both its neighbours", lambda y, _: peaks(y)),
    "step": Word("neighbours differ by at most k", lambda y, k: strides(y, k), range(1, 5), -1),
    "more": Word("most digits are at least v", lambda y, v: most(y, v), range(1, 10), +1),
}
"""The twenty words, from frequent to rare where a distribution has a long tail (`tasks.X0`)."""


def long(y: Digits) -> bool:
    """Whether an answer has a shape at all: three digits or more.

    Words that compare digits ask for it. If one digit were a palindrome, sorted, distinct and even,
    the shortest answer would meet most words for nothing, and a policy trained on prompts that
    cannot be met in full would learn to say little (LOG.md has the numbers).
    """
    return len(y) >= 3


def rises(y: Digits) -> bool:
    """Whether no digit is below the one before it."""
    return all(a <= b for a, b in pairwise(y))


def peaks(y: Digits) -> bool:
    """Whether a digit is above both its neighbours."""
    return any(a < b > c for a, b, c in zip(y, y[1:], y[2:], strict=False))


def strides(y: Digits, k: int) -> bool:
    """Whether neighbours differ by at most k."""
    return long(y) and all(abs(a - b) <= k for a, b in pairwise(y))


def most(y: Digits, v: int) -> bool:
    """Whether more than half of the digits are at least v."""
    return 2 * sum(d >= v for d in y) > len(y)


class Constraint(NamedTuple):
    """A word with its value; `str` gives its text."""

    word: str
    """A key of `WORDS`."""
    value: int = 0
    """One of the word's values; 0 for a word without one."""

    def __str__(self) -> str:
        return f"{self.word} {self.value}" if WORDS[self.word].values else self.word

    def holds(self, y: Digits) -> bool:
        """Whether the answer meets this constraint."""
        return WORDS[self.word].holds(y, self.value)


Constraints: TypeAlias = tuple[Constraint, ...]
"""What a prompt asks, in the order of its text."""

EVERY_CONSTRAINT: Constraints = tuple(
    Constraint(name, value) for name, word in WORDS.items() for value in word.values or (0,)
)
"""All that one constraint can ask: 112 of them."""


def parse(text: str) -> Constraints | str:
    """The constraints that a prompt's text states, or the reason why it is no prompt.

    Examples:
        >>> parse("last 6 even")
        (Constraint(word='last', value=6), Constraint(word='even', value=0))
        >>> parse("len 5 nice")
        "'nice' is no word of the constraint language"
    """
    constraints = []
    tokens = iter(text.split())
    for name in tokens:
        if name not in WORDS:
            return f"{name!r} is no word of the constraint language"
        values = {str(value): value for value in WORDS[name].values}
        written = next(tokens, "nothing") if values else ""
        if values and written not in values:
            return f"{name!r} takes a value from {', '.join(values)}; got {written!r}"
        constraints.append(Constraint(name, values.get(written, 0)))
    if not 1 <= len(constraints) <= MOST_CONSTRAINTS:
        return f"{len(constraints)} constraints; expected 1 to {MOST_CONSTRAINTS}"
    return tuple(constraints)


def parse_chat(messages: Sequence[Message]) -> Constraints | str:
    """The constraints that a chat asks for, or why it is no prompt: one user turn is expected."""
    if [message.role for message in messages] != ["user"]:
        roles = ", ".join(message.role for message in messages) or "none"
        return f"a prompt is one user turn; got the turns: {roles}"
    return parse(messages[0].content)


def render(constraints: Iterable[Constraint]) -> str:
    """The text of a prompt; `parse` reads it back.

    Examples:
        >>> render([Constraint("last", 6), Constraint("even")])
        'last 6 even'
    """
    return " ".join(map(str, constraints))


def canonical(constraints: Iterable[Constraint]) -> str:
    """One text for all prompts that ask the same: the constraints sorted, each of them once.

    Examples:
        >>> canonical([Constraint("last", 6), Constraint("even"), Constraint("last", 6)])
        'even last 6'
    """
    return render(sorted(set(constraints)))


def parse_answer(text: str) -> Digits | str:
    """The digits of an answer, or the reason why it is malformed.

    Examples:
        >>> parse_answer("8 4 2 6")
        (8, 4, 2, 6)
        >>> parse_answer("84 2")
        "'84' is no digit"
    """
    tokens = text.split()
    for token in tokens:
        # str.isdigit alone would also let digits of other scripts pass.
        if len(token) != 1 or token not in "0123456789":
            return f"{token!r} is no digit"
    if not 1 <= len(tokens) <= MOST_DIGITS:
        return f"{len(tokens)} digits; expected 1 to {MOST_DIGITS}"
    return tuple(map(int, tokens))


def score(constraints: Constraints, y: Digits) -> float:
    """How well an answer meets a prompt, in [0, 1]: 0.5 * share + 0.5 * all.

    `share` is the share of the constraints that hold, `all` is 1 if every one does, else 0.

    Examples:
        >>> score(parse("last 6 even"), (8, 4, 2, 6))
        1.0
        >>> score(parse("last 6 even"), (8, 4, 2))
        0.25
    """
    held = sum(constraint.holds(y) for constraint in constraints)
    return 0.5 * held / len(constraints) + 0.5 * (held == len(constraints))
