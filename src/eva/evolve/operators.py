"""Operators are text files: what a writer is told to do with a prompt.

The words {prompt}, {other}, {transcript} and {examples} of a file are replaced by texts as they
stand, whatever those hold; {in_depth} and {in_breadth} by the rules that several operators share.
How the answer must look (templates/_form.md) is added to every request. The wording is ours; what
each operator asks for follows Evol-Instruct (Xu et al., https://arxiv.org/abs/2304.12244) and the
in-depth and in-breadth operators of the paper.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eva.errors import RecipeError
from eva.recipe import nearest

SHIPPED = Path(__file__).parent / "templates"
"""The folder of eva's own files."""
APART = ("follow_up", "self_instruct")
"""Templates that are no operators: they rewrite nothing."""
SHARED = ("in_depth", "in_breadth")
"""Rules that several operators share; the file of each begins with an underscore."""
WORDS = re.compile(r"\{(prompt|other|transcript|examples|in_depth|in_breadth)\}")
"""What is replaced."""
TELLING = 40
"""Characters from which a line of a template is too long to stand in a prompt by chance."""


@dataclass(frozen=True)
class Template:
    """A text with words in braces."""

    text: str
    """The text, shared rules filled in."""
    told: frozenset[str]
    """Its longer lines; an output that holds one repeats the request."""

    def needs(self, word: str) -> bool:
        """Whether the text has {word}."""
        return f"{{{word}}}" in self.text

    def filled(self, **words: str) -> str:
        """The text with each word replaced, once: what is filled in is not looked at again."""
        return WORDS.sub(lambda found: words.get(found[1], found[0]), self.text)


def operators(names: Sequence[str], folder: str | None) -> dict[str, Template]:
    """The operators of these names, from eva's folder or one of your own, which comes first.

    Raises:
        RecipeError: There is no such operator or folder, or a file has no {prompt}.
    """
    shipped = {path.stem for path in SHIPPED.glob("*.md")}
    own = {path.stem for path in _existing(folder).glob("*.md")} if folder else set()
    known = {name for name in shipped | own if not name.startswith("_")} - set(APART)
    for name in names:
        if name not in known:
            raise RecipeError(f"there is no operator {name!r}; {nearest(name, known)}")
    return {name: template(name, "prompt", folder) for name in names}


def template(name: str, word: str, folder: str | None = None) -> Template:
    """The template NAME.md; it must have {word}.

    Raises:
        RecipeError: It cannot be read, or {word} is not in it.
    """
    return read(_path(name, folder), word, {rules: _path(f"_{rules}", folder) for rules in SHARED})


def read(path: Path, word: str, rules: Mapping[str, Path] | None = None) -> Template:
    """The template of a file, with the files of shared rules filled in; it must have {word}."""
    text = _text(path)
    shared = {name: _text(file) for name, file in (rules or {}).items()}
    whole = WORDS.sub(lambda found: shared.get(found[1], found[0]), text)
    if f"{{{word}}}" not in whole:
        raise RecipeError(f"{path} has no {{{word}}}; write it where that text is to stand")
    lines = (line.strip() for line in whole.splitlines() if not WORDS.search(line))
    return Template(whole, frozenset(line for line in lines if len(line) >= TELLING))


@cache
def form() -> str:
    """How an answer must look; added to every request."""
    return _text(SHIPPED / "_form.md")


def _path(name: str, folder: str | None) -> Path:
    own = _existing(folder) / f"{name}.md" if folder else None
    return own if own and own.is_file() else SHIPPED / f"{name}.md"


def _existing(folder: str) -> Path:
    if not Path(folder).is_dir():
        raise RecipeError(f"templates: there is no folder {folder!r}; give one with NAME.md files")
    return Path(folder)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the template {path} cannot be read as UTF-8 text: {error}") from error
