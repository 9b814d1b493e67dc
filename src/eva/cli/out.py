"""Where the verbs print."""

import re

from rich.console import Console
from rich.text import Text

STOPPED = "stopped; the same command goes on from the last finished stage"
"""What a person reads after Ctrl-C."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal would obey."""


def plain() -> Console:
    """Standard output as it is: brackets and colons of paths mean themselves, lines are not cut."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def inert(text: str) -> Text:
    """A text as it is, with control characters spelled out: a terminal would obey them."""
    return Text(CONTROL.sub(lambda c: f"U+{ord(c[0]):04X}", text), style="not bold")
