"""From what a writer put out to a new prompt, or to the reason why there is none.

Strict about the markers, since an output without them is more often talk about the task than a
prompt; lenient inside them, since models of 2 to 9 billion parameters forget the closing marker,
add a heading or quote the prompt. Of several blocks the last whole one counts: drafts and repeated
instructions come first. All of it is our choice.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from eva.records import Response

MARKER = re.compile(r"<[\s\\]*(/?)\s*new[\s\\_-]*prompt[\s\\]*>", re.IGNORECASE)
"""<new_prompt> and </new_prompt>, also as models misspell them."""
OTHER_MARKER = re.compile(
    r"<[\s\\]*/?\s*(?:(?:old|second|example)[\s\\_-]*prompt|conversation)[\s\\]*>", re.IGNORECASE
)
"""The markers of what a request shows."""
PLACEHOLDER = re.compile(r"\{(?:prompt|other|transcript|examples|in_depth|in_breadth)\}")
"""The words of a template that eva replaces."""
THOUGHT = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
"""What a reasoning model thinks before it answers; without an end, the answer never came."""
NAME = r"(?:new|rewritten|revised|updated|evolved|improved|created|given|final|follow-?up)"
"""What models call a prompt that is new."""
THING = r"(?:prompt|instruction|question|version|message|task)"
"""What models call a prompt."""
HEADING = re.compile(
    rf"[#*_>\[\s]*(?:the )?{NAME}[ _]{THING}[*_#\]\s]*(?::[*_#\s]*|\n+)", re.IGNORECASE
)
"""A heading such as "#Rewritten Prompt#:" or "**New prompt**"."""
LEAD = re.compile(
    rf"(?:(?:sure|certainly|okay|ok|of course)\b[^\n]{{0,20}}?)?"
    rf"\b(?:here is|here['\u2019]s|this is)\b[^\n:]{{0,40}}\b{NAME}\b"
    rf"[^\n:]{{0,40}}\b{THING}\b[^\n:]{{0,80}}:\s*",
    re.IGNORECASE,
)
"""A line that announces the prompt, such as "Here is the rewritten prompt:"."""
FENCE = re.compile(
    r"(`{3,}|~{3,})(?:text|txt|plaintext|markdown|md|prompt)?\s*\n(.*)\n\s*\1", re.DOTALL
)
"""A text that is one code block, and no code."""
QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“", "'": "'", "`": "`"}
"""What opens a quotation, and what closes it."""


NO_ANSWER = "the writer gave no answer"
"""How the reason begins where there is no output to parse."""


class Parsed(NamedTuple):
    """A new prompt, or the reason why there is none."""

    text: str
    """The prompt; empty if there is none."""
    flaw: str | None
    """Why there is none, or None."""


def parsed(response: Response, shown: Collection[str] = (), told: Collection[str] = ()) -> Parsed:
    """The new prompt that a writer wrote.

    Args:
        response: What it put out.
        shown: The prompts that its request showed; a copy of one of them is no new prompt.
        told: Sentences of its request; a text that repeats one is no prompt.

    Examples:
        >>> parsed(Response(text="<new_prompt>Why is the sky blue at noon?</new_prompt>")).text
        'Why is the sky blue at noon?'
        >>> parsed(Response(text="I am sorry, I cannot help with that.")).flaw
        'no <new_prompt> in the output'
    """
    if response.finish == "error":
        return Parsed("", f"{NO_ANSWER}: {response.error}")
    found = block(response.text)
    if found is None:
        is_cut = response.finish == "length"
        cut = "the output was cut at the token limit before </new_prompt>"
        return Parsed("", cut if is_cut else "no <new_prompt> in the output")
    if found.is_open and response.finish == "length":
        return Parsed("", "the output was cut at the token limit before </new_prompt>")
    text = bare(found.text)
    flaw = flaw_of(text, shown, told)
    return Parsed("" if flaw else text, flaw)


class Block(NamedTuple):
    """What stands between the markers."""

    text: str
    """The text; it holds no marker."""
    is_open: bool
    """Whether the closing marker is missing."""


def block(output: str) -> Block | None:
    """The last whole block of an output; without one, what follows its last opening marker.

    Examples:
        >>> block("<new_prompt>a</new_prompt> or rather <new_prompt>b</new_prompt>, as asked")
        Block(text='b', is_open=False)
        >>> block("<new_prompt>a")
        Block(text='a', is_open=True)
    """
    thought = THOUGHT.match(output)
    # [text, slash, text, slash, ..., text]: a slash is what the marker between two texts has.
    pieces = MARKER.split(output[thought.end() :] if thought else output)
    texts, slashes = pieces[::2], pieces[1::2]
    for i in reversed(range(len(slashes) - 1)):
        if not slashes[i] and slashes[i + 1]:
            return Block(texts[i + 1], is_open=False)
    return Block(texts[-1], is_open=True) if slashes and not slashes[-1] else None


def bare(text: str) -> str:
    """The text without headings, announcements, quotes and fences around the whole of it.

    Examples:
        >>> bare('#Rewritten Prompt#: "Why is the sky blue at noon?"')
        'Why is the sky blue at noon?'
        >>> bare('"To be or not to be": who says "Words, words, words"')
        '"To be or not to be": who says "Words, words, words"'
    """
    before, text = None, text.strip()
    while text != before:
        before = text
        for start in (LEAD, HEADING):
            found = start.match(text)
            text = text[found.end() :].strip() if found else text
        text = _unquoted(text)
    return text


def _unquoted(text: str) -> str:
    fence = FENCE.fullmatch(text)
    if fence and fence[1] not in fence[2]:
        return fence[2].strip()
    close = QUOTES.get(text[:1])
    inside = text[1:-1]
    if close and len(text) > 1 and text[-1] == close and not {text[0], close} & set(inside):
        return inside.strip()
    return text


def flaw_of(text: str, shown: Collection[str], told: Collection[str]) -> str | None:
    """Why a text is no new prompt, or None; see `parsed`."""
    if not any(character.isalnum() for character in text):
        return "no words between the markers"
    marker = MARKER.search(text) or OTHER_MARKER.search(text)
    if marker:
        return f"a marker of the request, {marker[0]}, stands in it"
    if any(placeholder not in "".join(shown) for placeholder in PLACEHOLDER.findall(text)):
        return "a placeholder of a template stands in it"
    if any(sentence in text for sentence in told):
        return "it repeats the request instead of answering it"
    words = text.split()
    if any(words == old.split() for old in shown):
        return "it repeats a prompt that the request showed"
    return None
