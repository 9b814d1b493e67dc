"""An exact index of near-duplicates: whoever could be one is found, and few others.

Two sets of shingles with a Jaccard similarity of s share so many that, if the shingles of each are
put in one order, rarest first, their beginnings meet: of n shingles the first n - ceil(s n) + 1.
So only beginnings are kept. Source: Bayardo, Ma, Srikant, "Scaling Up All Pairs Similarity Search",
WWW 2007, https://doi.org/10.1145/1242572.1242591; the bound for Jaccard: Xiao et al., "Efficient
Similarity Joins for Near Duplicate Detection", WWW 2008, https://doi.org/10.1145/1367497.1367516.

Prompts that one word sets apart meet too: each is also kept under itself with one word left out.
Hashes only find candidates, each of which is then compared, so no verdict hangs on a hash.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eva.gates.likeness import ONE_WORD, least_shared
from eva.records import Message
from eva.words import asked, shingles, words

Ints: TypeAlias = NDArray[np.int64]
"""Whole numbers; the docstring says the shape."""
BUCKETS = 1 << 20
"""Shingles are counted by their hash modulo this; a wrong count costs time, not a verdict."""


class Print(NamedTuple):
    """What of a chat is compared: the last user turn, among chats that began the same."""

    before: tuple[tuple[str, ...], ...]
    """The words of all other turns; nothing for a chat of one turn."""
    words: tuple[str, ...]
    """The words of the last user turn."""


def printed(messages: Sequence[Message]) -> Print:
    """The print of a chat."""
    # Interned: prompts share most words, and a pool of them fits into a fraction of the memory.
    found = tuple(map(sys.intern, words(asked(messages))))
    if len(messages) == 1:
        return Print((), found)
    return Print(tuple((m.role, *words(m.content)) for m in messages[:-1]), found)


@dataclass(frozen=True)
class Rule:
    """When two prompts may be near-duplicates."""

    similarity: float
    """Jaccard similarity of the shingles from which they may be."""
    shingle: int
    """Words in a shingle."""
    one_word: bool
    """Whether those that one word sets apart are too."""


@dataclass(frozen=True)
class Keys:
    """The hashes of P prompts, flat."""

    shingles: Ints
    """Hashes of shingles, prompt after prompt."""
    counts_P: Ints
    """How many of them each prompt has."""
    edits: Ints
    """Hashes of each prompt with no word or one word left out."""
    edit_counts_P: Ints
    """How many of them each prompt has."""


def keys(prints: Iterable[Print], rule: Rule) -> Keys:
    """The hashes of prompts."""
    flat, counts, edits, edit_counts = (array("q") for _ in range(4))
    for before, found in prints:
        salt = hash(before)
        mine = {salt ^ hash(shingle) for shingle in shingles(found, rule.shingle)}
        flat.extend(mine)
        counts.append(len(mine))
        near = _edits(found, salt) if rule.one_word else set()
        edits.extend(near)
        edit_counts.append(len(near))
    columns = (flat, counts, edits, edit_counts)
    return Keys(*(np.frombuffer(c, dtype=np.int64) if c else np.zeros(0, int) for c in columns))


def _edits(found: tuple[str, ...], salt: int) -> set[int]:
    if not ONE_WORD[0] <= len(found) <= ONE_WORD[1]:
        return set()
    left_out = {salt ^ hash(found[:i] + found[i + 1 :]) for i in range(len(found))}
    return left_out | {salt ^ hash(found)}


class Table:
    """Which prompts have a key: the keys sorted, and beside each the place of its prompt."""

    def __init__(self, keys: Ints, owners: Ints) -> None:
        order = np.argsort(keys, kind="stable")  # owners of one key stay in ascending order
        self._keys, self._owners = keys[order], owners[order].astype(np.int32)

    def met(self, keys: Ints, owners: Ints, others: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Of each key that at least `others` prompts have: who asks, and their places."""
        left = np.searchsorted(self._keys, keys, "left")
        right = np.searchsorted(self._keys, keys, "right")
        some = np.flatnonzero(right - left >= others)
        for owner, begin, end in zip(
            owners[some].tolist(), left[some].tolist(), right[some].tolist(), strict=True
        ):
            yield owner, self._owners[begin:end]


class Index:
    """Prompts by what a near-duplicate of theirs must share with them."""

    def __init__(self, known: Keys, similarity: float) -> None:
        self._similarity = similarity
        self._counts = np.bincount(known.shingles % BUCKETS, minlength=BUCKETS)
        self._shingles = Table(*self._beginnings(known))
        self._edits = Table(known.edits, places(known.edit_counts_P))

    def candidates(
        self, asking: Keys, *, themselves: bool = False
    ) -> dict[int, list[NDArray[np.int32]]]:
        """For each asking prompt that may have near-duplicates: lists of places, each ascending.

        Args:
            asking: The prompts whose near-duplicates are looked for.
            themselves: Whether they are those of the index, so that each finds itself too.
        """
        others = 2 if themselves else 1
        found: dict[int, list[NDArray[np.int32]]] = {}
        for owner, met in self._shingles.met(*self._beginnings(asking), others):
            found.setdefault(owner, []).append(met)
        for owner, met in self._edits.met(asking.edits, places(asking.edit_counts_P), others):
            found.setdefault(owner, []).append(met)
        return found

    def _beginnings(self, known: Keys) -> tuple[Ints, Ints]:
        """The shingles that are kept of each prompt, and whose each is."""
        owners = places(known.counts_P)
        rarity = self._counts[known.shingles % BUCKETS]
        order = np.lexsort((known.shingles, rarity, owners))
        begin_P = np.cumsum(known.counts_P) - known.counts_P
        rank = np.arange(len(owners)) - begin_P[owners]
        sizes = range(int(known.counts_P.max(initial=0)) + 1)
        kept = np.array([n - least_shared(n, self._similarity) + 1 for n in sizes])
        stays = rank < kept[known.counts_P][owners]
        return known.shingles[order][stays], owners[stays]


def places(counts_P: Ints) -> Ints:
    """Whose each entry of a flat list is: p, counts_P[p] times, for each p."""
    return np.repeat(np.arange(len(counts_P)), counts_P)


def first(
    candidates: Sequence[NDArray[np.int32]], end: int, is_same: Callable[[int], bool]
) -> int | None:
    """The first place below `end` that is the same, among lists of ascending places."""
    seen: set[int] = set()
    for met in candidates:
        for place in map(int, met):
            if place >= end:
                break
            if place not in seen:
                seen.add(place)
                if is_same(place):
                    end = place
                    break
    return end if end in seen else None
