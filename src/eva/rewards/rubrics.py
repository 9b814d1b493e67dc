"""Rubrics: what a judge is asked, as text files with placeholders.

A text that is inserted stands between two lines with a mark that is made of all inserted texts, so
nobody who writes such a text can end it early.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from eva.errors import RecipeError
from eva.rewards.texts import checked, filled

FOLDER = Path(__file__).parent / "rubrics"
"""Those that ship with eva."""
NEEDED = {"points": ("prompt", "response"), "pairs": ("prompt", "first", "second")}
"""What a rubric of each mode must insert."""


def load(rubric: str, mode: str) -> str:
    """The text of a rubric that ships with eva, or of a file.

    Raises:
        RecipeError: There is no such rubric, or it lacks a placeholder of its mode.
    """
    shipped = sorted(file.stem for file in FOLDER.glob("*.md"))
    path = FOLDER / f"{rubric}.md" if rubric in shipped else Path(rubric)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"there is no rubric {rubric!r} ({error}); give the path of a text file, or one of "
            f"those that ship with eva: {', '.join(shipped)}"
        ) from error
    return checked(text, NEEDED[mode], f"reward.rubric {rubric} in mode {mode}")


def question(rubric: str, texts: Mapping[str, str], values: Mapping[str, str]) -> str:
    """What a judge is asked.

    Args:
        rubric: The text with placeholders.
        texts: What is inserted between marked lines, by placeholder.
        values: What is inserted as it stands.

    Examples:
        >>> print(question("Rate {response} up to {high}.", {"response": "{high}"}, {"high": "9"}))
        Rate <response 012d1056>
        {high}
        </response 012d1056> up to 9.
    """
    mark = hashlib.blake2b(repr(sorted(texts.items())).encode(), digest_size=4).hexdigest()
    marked = {name: f"<{name} {mark}>\n{text}\n</{name} {mark}>" for name, text in texts.items()}
    return filled(rubric, {**marked, **values})
