"""How many requests a server is given at once, and how long a refused one waits.

Additive growth, multiplicative shrinkage. A server that refuses many of the latest requests (429 or
503) gets half as many; one odd refusal changes nothing. All numbers are our choice.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MEMORY = 0.02
"""Weight of the latest answer in the running share of refusals: a memory of about 50 answers."""
MANY = 0.2
"""The share of refusals from which there are too many; 1 in 20 at random never gets there."""
SHRINK = 0.5
"""What remains of the limit then."""
STEPS = 32
"""Rounds of answers without a refusal in which an emptied limit is full again."""
FIRST_WAIT = 0.25
"""Upper bound on the wait after a first failure, in seconds; it doubles with each further one."""
LONGEST_WAIT = 30.0
"""Upper bound on any such wait, in seconds."""


class Limit:
    """The number of requests that one server may have in flight."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._size = float(ceiling)
        self._refused = 0.0
        self._shrunk = float("-inf")

    @property
    def size(self) -> int:
        """Requests, at least 1."""
        return int(self._size)

    def answered(self) -> None:
        """The server took a request: grow by a step for each round of answers."""
        self._refused *= 1.0 - MEMORY
        self._size = min(self._ceiling, self._size + self._ceiling / STEPS / self._size)

    def refused(self, sent: float, now: float) -> bool:
        """The server refused a request; whether that shrank the limit.

        What was sent before the limit last shrank says nothing about the new limit.

        Args:
            sent: When the request was sent, in seconds of any clock.
            now: The same clock now.
        """
        if sent < self._shrunk:
            return False
        self._refused += MEMORY * (1.0 - self._refused)
        if self._refused < MANY:
            return False
        self._size = max(1.0, self._size * SHRINK)
        self._refused, self._shrunk = 0.0, now
        return True


def wait(failures: int, draw: float, asked_for: float = 0.0) -> float:
    """Seconds until a request is sent again: full jitter, and never before the server wants it.

    Args:
        failures: Failures so far, from 1.
        draw: A draw from [0, 1).
        asked_for: What the server asked for.
    """
    return asked_for + draw * min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 16))


def retry_after(header: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for, in seconds or as a date; 0 where it says nothing.

    Examples:
        >>> retry_after("1.5", datetime(2030, 1, 1, tzinfo=UTC))
        1.5
        >>> retry_after("Tue, 01 Jan 2030 00:00:30 GMT", datetime(2030, 1, 1, tzinfo=UTC))
        30.0
    """
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds = (at - now).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else 0.0
