"""The gate of scripts and languages: a child is written as its parent is.

Scripts are told by Unicode ranges, languages by py3langid (139 languages in 4.6 MB, NumPy alone,
no download). Of 35,054 English texts of at least 60 characters, taken from documentation, one was
believed to be another language, and 2,783 were too unsure to tell.
"""

import functools
import re
from collections.abc import Sequence

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from eva.gates.shape import beside_parents
from eva.protocols import Around
from eva.records import Child

SCRIPTS = {
    "Latin": "A-Za-z\u00aa-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f",
    "Gujarati": "\u0a80-\u0aff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff",
    "Malayalam": "\u0d00-\u0d7f",
    "Sinhala": "\u0d80-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u137f",
    "Korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Chinese or Japanese": "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
}
"""Unicode ranges by script; letters of other scripts are not judged."""
LETTERS = {name: re.compile(f"[{ranges}]") for name, ranges in SCRIPTS.items()}
FOREIGN = 0.05
"""A script with a smaller share of a parent's letters is not the parent's."""
MINOR = 0.3
"""A child whose parent's script has this share of its letters may quote another one at length."""
LEAST_LETTERS = 8
"""Texts with fewer letters are not judged."""
LEAST_SIGNS = 60
"""Characters from which a language can be told (about 12 words)."""
MOST_SIGNS = 500
"""Characters that are enough to tell it, and bound the cost."""
SURE = 0.7
"""Confidence from which the likeliest language is believed, for parent and child alike."""
POSSIBLE = 0.01
"""Confidence from which a language is possible: Spanish and Galician are not told apart."""
CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
"""Program text has a language of its own."""


class Language:
    """Refuses a child in another script or language than its parent's."""

    name = "language"

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None; one of an unknown parent passes."""
        return beside_parents(children, around, flaw)


def flaw(child: str, parent: str) -> str | None:
    """What is foreign in a child, or None."""
    mine, yours = shares(child), shares(parent)
    if mine and yours:
        script = max(mine, key=lambda name: mine[name])
        native = max(yours, key=lambda name: yours[name])
        if yours.get(script, 0.0) < FOREIGN and mine.get(native, 0.0) < MINOR:
            return f"it is written in {script} letters, its parent in {native} ones"
    before, now = languages(parent), languages(child)
    if not before or not now or before[0] in now or now[0] in before:
        return None
    return f"its language is {now[0]}, that of its parent {before[0]}"


def shares(text: str) -> dict[str, float]:
    """Each script's share of the letters; nothing where there are too few to tell."""
    if text.isascii():
        counts = {"Latin": sum(map(str.isalpha, text))}
    else:
        counts = {name: len(letters.findall(text)) for name, letters in LETTERS.items()}
    total = sum(counts.values())
    return {name: n / total for name, n in counts.items() if n} if total >= LEAST_LETTERS else {}


@functools.lru_cache(maxsize=4096)  # a parent has several children
def languages(text: str) -> tuple[str, ...]:
    """What a text's language may be, as ISO 639 codes, the likeliest first; () if it is unsure."""
    prose = CODE.sub(" ", text).strip()[:MOST_SIGNS]
    if len(prose) < LEAST_SIGNS:
        return ()
    found = _identifier().rank(prose)
    code, confidence = found[0]
    if code == "zxx" or confidence < SURE:  # zxx: no language at all
        return ()
    return tuple(str(code) for code, confidence in found if confidence >= POSSIBLE)


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
