"""Gates that look at the size of a child, and at what it shares with its parent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eva.gates.likeness import BROUGHT, bag_similarity, brought, is_one_word_apart
from eva.protocols import Around
from eva.records import Child
from eva.words import asked, words

ROOM = 64
"""Words that every child may have, however short its parent."""


@dataclass(frozen=True)
class Words:
    """Refuses a child that asks in too few or too many words."""

    least: int
    most: int
    name: str = "words"

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None."""
        return [self._flaw(len(words(asked(child.messages)))) for child in children]

    def _flaw(self, count: int) -> str | None:
        if self.least <= count <= self.most:
            return None
        return f"it has {count} words; between {self.least} and {self.most} are allowed"


@dataclass(frozen=True)
class Growth:
    """Refuses a child that is many times as long as its parent."""

    growth: float
    name: str = "growth"

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None; one of an unknown parent passes."""
        return beside_parents(children, around, self._flaw)

    def _flaw(self, child: str, parent: str) -> str | None:
        count, before = len(words(child)), len(words(parent))
        if count <= max(ROOM, self.growth * before):
            return None
        return f"it has {count} words where its parent has {before}: {count / before:.1f} times"


@dataclass(frozen=True)
class Copy:
    """Refuses a child that says what its parent says."""

    similarity: float
    name: str = "copy_of_parent"

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None; one of an unknown parent passes."""
        return beside_parents(children, around, self._flaw)

    def _flaw(self, child: str, parent: str) -> str | None:
        mine, yours = words(child), words(parent)
        if mine == yours:
            return "it says the same as its parent"
        if is_one_word_apart(mine, yours):
            return "it differs from its parent in one word"
        alike = bag_similarity(mine, yours)
        if alike >= self.similarity and brought(mine, yours) < BROUGHT:
            return f"it copies its parent: the similarity of their words is {alike:.2f}"
        return None


def beside_parents(
    children: Sequence[Child], around: Around, flaw: Callable[[str, str], str | None]
) -> list[str | None]:
    """What `flaw` says of each child's question and its parent's; None without a parent."""
    flaws = []
    for child in children:
        parent = around.parents.get(child.parent)
        asks = asked(child.messages)
        flaws.append(flaw(asks, asked(parent.messages)) if parent is not None else None)
    return flaws
