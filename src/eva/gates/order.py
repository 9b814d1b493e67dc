"""The gates of a recipe, in the order in which a child meets them."""

from collections.abc import Iterator, Mapping, Sequence

from eva.adapt import Asked
from eva.gates.answerable import Answerable
from eva.gates.contamination import Contamination
from eva.gates.duplicates import Duplicates
from eva.gates.refusal import Refusal
from eva.gates.shape import Copy, Growth, Words
from eva.parts.gates import Gates
from eva.protocols import Screen
from eva.records import Prompt


def screens(
    part: Gates, apart: Mapping[str, Sequence[Prompt]], judge: Asked | None
) -> tuple[Screen, ...]:
    """The gates that a recipe asks for.

    What can be told from a child alone comes first, and the judge, who costs most, comes last. The
    gate of duplicates stands behind the others that cost nothing, so that no child is refused for
    the sake of one that is refused itself.

    Args:
        part: What the recipe asks for.
        apart: Evaluation prompts by the name of their set.
        judge: Who says whether a prompt can be answered, where the recipe asks for that.
    """
    return tuple(_screens(part, apart, judge))


def _screens(
    part: Gates, apart: Mapping[str, Sequence[Prompt]], judge: Asked | None
) -> Iterator[Screen]:
    if part.refusal:
        yield Refusal()
    yield Words(*part.words)
    if part.growth is not None:
        yield Growth(part.growth)
    if part.copy_of_parent is not None:
        yield Copy(part.copy_of_parent)
    if part.language:
        from eva.gates.language import Language  # it alone needs the extra

        yield Language()
    if part.contamination is not None:
        yield Contamination(part.contamination, apart)
    if part.duplicates is not None:
        yield Duplicates(part.duplicates)
    if part.answerable is not None:
        assert judge is not None  # who builds the gates opens it
        yield Answerable(part.answerable, judge)
