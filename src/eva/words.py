"""The words of a text, as gates and measures compare them: case and punctuation do not count."""

import re
import unicodedata
from collections.abc import Sequence

from eva.records import Message

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces, so each sign is a word."""
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
"""Vowel signs and accents that belong to a word although they are no letters; Indic scripts."""
WORD = re.compile(rf"[{UNSPACED}]|(?:[^\W_{UNSPACED}]|[{MARKS}])+|[=<>+*/^-](?=\s*\d)")
"""A word, or a sign before a number: 2 + 3 and 2 - 3 ask for different things."""
APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")
"""Within a word: "don't" and "dont" are the same."""


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation, in Unicode's form NFKC.

    Examples:
        >>> words("Don't  PANIC: 2+3!")
        ['dont', 'panic', '2', '+', '3']
        >>> words("猫が好き")
        ['猫', 'が', '好', 'き']
    """
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return WORD.findall(APOSTROPHE.sub("", plain))


def shingles(found: Sequence[str], k: int) -> set[tuple[str, ...]]:
    """All runs of k words; of a shorter text the whole, of an empty one nothing.

    Examples:
        >>> sorted(shingles(["a", "b", "c"], 2))
        [('a', 'b'), ('b', 'c')]
        >>> shingles(["a"], 2), shingles([], 2)
        ({('a',)}, set())
    """
    if len(found) <= k:
        return {tuple(found)} if found else set()
    return set(zip(*(found[i:] for i in range(k)), strict=False))


def asked(messages: Sequence[Message]) -> str:
    """What a chat asks: its last user turn; "" if it has none.

    Examples:
        >>> asked([Message(role="user", content="a"), Message(role="assistant", content="b")])
        'a'
    """
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


def user_turns(messages: Sequence[Message]) -> list[str]:
    """What the user says in a chat, turn by turn."""
    return [message.content for message in messages if message.role == "user"]
