"""A chat as a writer sees it: what was said before, and the user turn that is rewritten."""

from collections.abc import Sequence

from eva.records import Message

SPEAKER = {"system": "System", "user": "User", "assistant": "Assistant"}
"""Who speaks, as a transcript says it."""


def turn_flaw(messages: Sequence[Message]) -> str | None:
    """Why a chat cannot be rewritten, or None: it must end with a user turn."""
    role = messages[-1].role
    return None if role == "user" else f"the parent ends with a turn of the {role}, not of the user"


def transcript(messages: Sequence[Message]) -> str:
    """Turns as a text.

    Examples:
        >>> print(transcript([Message(role="user", content="Hi.")]))
        User: Hi.
    """
    return "\n\n".join(f"{SPEAKER[message.role]}: {message.content}" for message in messages)


def system_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The system turns that a chat begins with."""
    first = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    return tuple(messages[:first])


def first_user_text(messages: Sequence[Message]) -> str | None:
    """The first thing that the user says, which stands for itself; None if there is nothing."""
    return next((message.content for message in messages if message.role == "user"), None)
