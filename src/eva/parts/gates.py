"""What a newborn prompt must pass. All of it is our choice: the paper has no gate."""

from typing import Literal, Self

from pydantic import Field, model_validator

from eva.parts import Part
from eva.parts.policies import ModelPart
from eva.parts.prompts import PromptsPart
from eva.records import Sampling


class Duplicates(Part):
    """Near-duplicates: prompts with nearly the same runs of words, or all words but one.

    A child that brings 8 words or more which the other lacks is new, however long both are. The
    parent is no duplicate: `copy_of_parent` judges it.
    """

    against: tuple[Literal["siblings", "pool", "history"], ...] = ("siblings", "pool", "history")
    """Earlier children of the round, the pool, and prompts of earlier rounds."""
    similarity: float = Field(default=0.7, gt=0.0, le=1.0)
    """Jaccard similarity of the shingles from which two prompts are the same, compared exactly."""
    shingle: int = Field(default=3, ge=1)
    """Words in a shingle; prompts are short, and one changed word touches so many shingles."""
    one_word: bool = True
    """Whether prompts of 4 to 32 words that one word sets apart are the same. Turn it off where one
    word is the question: templates, sums, a constraint language."""


class Contamination(Part):
    """Prompts that give an evaluation set away, turn by turn of the user."""

    sets: dict[str, PromptsPart] = Field(default_factory=dict)
    """Evaluation prompts by name, beside the held-out sets of the recipe, which always count; e.g.
    {arena-hard: {kind: jsonl, path: question.jsonl, column: turns}}."""
    words: int = Field(default=13, ge=1)
    """A run of so many words that stands in an evaluation prompt refuses (13: GPT-3's); of a
    shorter prompt the whole is such a run, if it has at least 8 words."""
    similarity: float = Field(default=0.6, gt=0.0, le=1.0)
    """Or this share of an evaluation prompt's shingles of 3 words (for prompts shorter than a run,
    this Jaccard similarity of the shingles)."""


class Answerable(Part):
    """A judge says whether a prompt can be answered as it stands."""

    by: ModelPart
    """Who judges."""
    rubric: str = "answerable"
    """A text file with {prompt}, or the name of the one that ships with eva."""
    sampling: Sampling = Field(
        default_factory=lambda: Sampling(temperature=0.0, top_p=1.0, max_tokens=256)
    )
    """How its verdict is drawn."""


class Gates(Part):
    """Gates in the order in which a child meets them; the first that refuses is recorded."""

    refusal: bool = True
    """The writer declined ("I cannot ..."), or talked about the task instead of doing it."""
    words: tuple[int, int] = (3, 1024)
    """Least and greatest number of words that it asks in: of its last user turn, here and below."""
    growth: float | None = Field(default=4.0, gt=1.0)
    """A child may have at most so many times the words of its parent (and 64 in any case); null
    for any."""
    copy_of_parent: float | None = Field(default=0.9, gt=0.0, le=1.0)
    """Jaccard similarity of words with the parent from which a child is a copy, unless it brings 8
    words or more; one changed word is a copy too; null for off."""
    language: bool = True
    """The child must be written in the script and, where both are long enough to tell, in the
    language of its parent."""
    contamination: Contamination | None = Field(default_factory=Contamination)
    """Evaluation prompts; null for exact held-out prompts alone."""
    duplicates: Duplicates | None = Field(default_factory=Duplicates)
    """Near-duplicates; null for exact ones alone."""
    answerable: Answerable | None = None
    """A judge's verdict; it costs a request for each child that passed the rest."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if not 0 <= self.words[0] <= self.words[1]:
            raise ValueError(f"words {list(self.words)} is no range; give the least, then the most")
        return self
