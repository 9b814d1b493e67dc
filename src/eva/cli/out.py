"""Where the verbs print."""

from rich.console import Console

STOPPED = "stopped; the same command goes on from the last finished stage"
"""What a person reads after Ctrl-C."""


def plain() -> Console:
    """Standard output as it is: brackets and colons of paths mean themselves, lines are not cut."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
