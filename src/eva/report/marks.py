"""Texts and rewards as markup: everything is escaped, nothing invisible stays hidden."""

import difflib
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from eva.records import Message

MISSING = "\u2013"
"""Printed where a number or a key is missing: an en dash."""
PREVIEW = 240
"""Characters of a text that are shown at once."""
WHOLE = 4000
"""Characters of a text that can be opened; the rest is only counted, to keep the page small."""
SLACK = 160
"""Characters that are rather shown than hidden behind a click."""
TURNS = 12
"""Turns of a chat that are shown."""

# Control and direction characters; the zero-width joiner and the variation selectors stay, since
# emoji and many scripts need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def shown(text: str) -> Markup:
    """A text, escaped, with characters that hide or turn text written out as code points."""
    parts: list[Markup] = []
    end = 0
    for found in _HIDDEN.finditer(text):
        parts.append(escape(text[end : found.start()]))
        parts.append(Markup('<i class="cp">U+{:04X}</i>').format(ord(found.group())))
        end = found.end()
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


def inert(text: str) -> str:
    """A text for an attribute or a title, with what `shown` writes out as code points."""
    return _HIDDEN.sub(lambda found: f"U+{ord(found.group()):04X}", text)


def clipped(text: str, preview: int = PREVIEW, whole: int = WHOLE) -> Markup:
    """A text whose beginning is shown and whose rest opens, up to a limit."""
    if len(text) <= preview + SLACK:
        return shown(text)
    more = len(text) - whole
    note = Markup('<span class="cut">{:,} more characters are not on this page</span>')
    return _folded(text[:preview], shown(text[:whole]) + (note.format(more) if more > 0 else ""))


def _folded(head: str, body: Markup) -> Markup:
    """The beginning of a text, and the text that opens in its place."""
    return Markup(
        '<details class="long"><summary><span class="head">{}…</span></summary>{}</details>'
    ).format(shown(head), body)


def plain(messages: Sequence[Message]) -> str:
    """A chat as one text: one user turn as it stands, several turns with their roles."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def chat(messages: Sequence[Message], before: Sequence[Message] = ()) -> Markup:
    """A chat; with `before`, the words that are new against it are marked.

    Args:
        messages: The chat; of a long one the last turns are shown.
        before: The chat that it was rewritten from, or nothing.
    """
    first = max(0, len(messages) - TURNS)
    turns = [Markup('<div class="cut">{} earlier turns</div>').format(first)] if first else []
    alone = len(messages) == 1 and messages[0].role == "user"
    whole = WHOLE // min(len(messages), TURNS)
    for number, message in enumerate(messages[first:], first):
        old = before[number].content if number < len(before) else ""
        body = (
            changed(old, message.content, whole)
            if before
            else clipped(message.content, whole=whole)
        )
        role = Markup("") if alone else Markup('<b class="role">{}</b> ').format(message.role)
        turns.append(Markup('<div class="turn">{}{}</div>').format(role, body))
    return Markup("").join(turns)


def changed(before: str, after: str, whole: int = WHOLE) -> Markup:
    """`after`, with inserted words in <ins> and dropped ones in <del>; long texts are unmarked."""
    if max(len(before), len(after)) > whole:
        return clipped(after, whole=whole)
    old, new = before.split(), after.split()
    same = difflib.SequenceMatcher(None, old, new, autojunk=False)
    parts = []
    for kind, i1, i2, j1, j2 in same.get_opcodes():
        if kind == "equal":
            parts.append(shown(" ".join(new[j1:j2])))
            continue
        if i2 > i1:
            parts.append(Markup("<del>{}</del>").format(shown(" ".join(old[i1:i2]))))
        if j2 > j1:
            parts.append(Markup("<ins>{}</ins>").format(shown(" ".join(new[j1:j2]))))
    marked = Markup(" ").join(parts)
    return marked if len(after) <= PREVIEW + SLACK else _folded(after[:PREVIEW], marked)


def bars(rewards: Sequence[float | None], low: float, high: float) -> Markup:
    """The rewards of one prompt as small bars, lowest first; a missing one is a hollow ring.

    Args:
        rewards: The rewards, None where missing.
        low: The reward of a bar without height.
        high: The reward of a full bar.
    """
    known = sorted(r for r in rewards if r is not None)
    missing = len(rewards) - len(known)
    marks = []
    for number, reward in enumerate(known):
        height = 1.5 + 14.5 * min(1.0, max(0.0, (reward - low) / ((high - low) or 1.0)))
        marks.append(
            Markup('<rect x="{}" y="{:.1f}" width="4" height="{:.1f}" rx="1"/>').format(
                6 * number, 16 - height, height
            )
        )
    rings = [
        Markup('<circle cx="{}" cy="14" r="1.6"/>').format(6 * n + 2)
        for n in range(len(known), len(rewards))
    ]
    said = "rewards " + " ".join(f"{reward:.2f}" for reward in known)
    said += f", {missing} missing" if missing else ""
    return Markup(
        '<svg class="bars" role="img" viewBox="0 0 {w} 16" width="{w}" height="16">'
        "<title>{said}</title>{marks}</svg>"
    ).format(w=max(4, 6 * len(rewards) - 2), said=said, marks=Markup("").join(marks + rings))


def number(value: float | None, digits: int = 3) -> str:
    """A number as it is printed, with a true minus sign; a missing one is a dash."""
    return MISSING if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def signed(value: float) -> str:
    """A difference as it is printed, always with its sign."""
    return f"{value:+.3f}".replace("-", "\u2212")
