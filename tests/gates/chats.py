"""Children and prompts for the tests of gates."""

from eva.protocols import Around
from eva.records import Child, Message, Prompt


def chat(*turns: str) -> tuple[Message, ...]:
    """User and assistant in turn, the user first."""
    return tuple(
        Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(turns)
    )


def prompt(*turns: str, **fields) -> Prompt:
    return Prompt(messages=chat(*turns), **fields)


def child(*turns: str, parent: str = "somebody", method: str = "deepen", by: str = "m") -> Child:
    return Child(parent=parent, messages=chat(*turns), method=method, by=by)


def family(parent: str, *texts: str) -> tuple[list[Child], Around]:
    """Children of one parent, and surroundings in which it is known."""
    origin = prompt(parent)
    return [child(text, parent=origin.id) for text in texts], Around({origin.id: origin}, (origin,))
