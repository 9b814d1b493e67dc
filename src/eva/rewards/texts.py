"""Prompts and responses as text inside another text: a rubric, or what a classifier reads."""

import re
from collections.abc import Mapping, Sequence

from eva.errors import RecipeError
from eva.records import Message


def transcript(messages: Sequence[Message]) -> str:
    """A chat as a person would read it; a single question stands alone.

    Examples:
        >>> transcript([Message(role="user", content="2 + 2?")])
        '2 + 2?'
        >>> turns = [("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?")]
        >>> print(transcript([Message(role=who, content=what) for who, what in turns]))
        User:
        2 + 2?
        <BLANKLINE>
        Assistant:
        4
        <BLANKLINE>
        User:
        And 3 + 3?
    """
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"{turn.role.capitalize()}:\n{turn.content}" for turn in messages)


def filled(template: str, texts: Mapping[str, str]) -> str:
    """The template with each {name} replaced by its text, which is not looked into again.

    Examples:
        >>> filled("{prompt} -> {response} {other}", {"prompt": "{response}", "response": "hi"})
        '{response} -> hi {other}'
    """
    names = "|".join(map(re.escape, texts))
    return re.sub(rf"\{{({names})\}}", lambda found: texts[found[1]], template)


def checked(template: str, needed: Sequence[str], key: str) -> str:
    """The template, which must name all that is inserted.

    Raises:
        RecipeError: It lacks a placeholder; `key` is where the recipe names the template.
    """
    lacking = [name for name in needed if f"{{{name}}}" not in template]
    if lacking:
        expected = ", ".join(f"{{{name}}}" for name in needed)
        raise RecipeError(
            f"{key} is a text with {expected}; this one lacks {{{lacking[0]}}}: {template!r:.80}; "
            "put it in where the text belongs"
        )
    return template
