"""Rewards that could not be had: NaN, counted by their reason, and told in one line a call."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

NO_ANSWER = "the policy gave no answer"
"""The reason where a response is an error."""
EXCERPT = 160
"""Characters of the example that a line shows."""


@dataclass(frozen=True)
class Missing:
    """Why one score is missing."""

    reason: str
    """In words that are the same for all that it befalls, so that they can be counted."""
    example: str
    """What shows it: the end of a verdict, or which prompt."""


def tell(log: logging.Logger, what: str, missing: Sequence[Missing], asked: int) -> None:
    """Log one line about the scores of a call that are missing; nothing where none is.

    Args:
        log: The logger of the module that asks.
        what: What is missing, as a plural, e.g. "verdicts".
        missing: Why, one for each.
        asked: How many there should be.
    """
    if not missing:
        return
    examples = {one.reason: one.example for one in reversed(missing)}
    counts = Counter(one.reason for one in missing)
    told = "; ".join(
        f"{count} because {reason}, such as {examples[reason][-EXCERPT:]!r}"
        for reason, count in counts.most_common()
    )
    log.warning("%d of %d %s are missing: %s", len(missing), asked, what, told)
