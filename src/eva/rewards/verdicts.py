"""What a judge says, read: a number, a preference, or the reason why it is no verdict.

The last line that begins with "Verdict:" counts, so reasons may name other verdicts before it.
Markup around it (asterisks, brackets, a heading) is left out, and nothing else.
"""

import re

VERDICT = re.compile(r"^[ \t>#*_`]*verdict[ *_`]*:(.*)$", re.IGNORECASE | re.MULTILINE)
"""A line with a verdict; what stands after the colon."""
MARKUP = " \t\r*_`[]()"
"""Characters that may stand around a verdict; a full stop may follow it."""
WINS = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""What the first of two responses gets for each verdict."""


def points(text: str, low: float, high: float) -> float | str:
    r"""The number of a verdict in [low, high], or the reason why there is none.

    A number may be followed by the greatest one, as in 7/10.

    Examples:
        >>> points("Verdict: 10? That is too much.\n\n**Verdict: 7/10**", 1, 10)
        7.0
        >>> points("Verdict: 11", 1, 10)
        'its number is outside of [1, 10]'
    """
    verdict = _last(text)
    if verdict is None:
        return 'it has no line that begins with "Verdict:"'
    number, _, most = verdict.partition("/")
    value = _number(number)
    if value is None or (most and _number(most) != high):
        return "its verdict is no number"
    return value if low <= value <= high else f"its number is outside of [{low:g}, {high:g}]"


def preference(text: str) -> float | str:
    r"""1 if the first response wins, 0 if the second does, 1/2 for a tie; or why there is none.

    Examples:
        >>> preference("A is clear, B is wrong.\nVerdict: A"), preference("Verdict: **tie**")
        (1.0, 0.5)
        >>> preference("Verdict: A or B")
        'its verdict is none of A, B, tie'
    """
    verdict = _last(text)
    if verdict is None:
        return 'it has no line that begins with "Verdict:"'
    return WINS.get(verdict.lower(), "its verdict is none of A, B, tie")


def _last(text: str) -> str | None:
    found = VERDICT.findall(text)
    return _bare(found[-1]) if found else None


def _number(text: str) -> float | None:
    digits = re.fullmatch(r"[+-]?\d+(\.\d+)?", _bare(text))
    return float(digits[0]) if digits else None


def _bare(text: str) -> str:
    return text.rstrip(MARKUP + ".").lstrip(MARKUP)
