"""The gate of evaluation prompts: what is measured must not be trained on."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from eva.gates.likeness import ONE_WORD, is_one_word_apart, jaccard, least_shared
from eva.parts.gates import Contamination as Part
from eva.protocols import Around
from eva.records import Child, Prompt
from eva.words import shingles, user_turns, words

SHINGLE = 3
"""Words in a shingle; our choice, see `eva.gates.likeness`."""
LEAST_RUN = 8
"""A shorter evaluation turn refuses what asks the same, not all that quotes it: "tell me more"
stands in many prompts. 8 to 13 words are the runs by which GPT-3 was checked: Brown et al.,
"Language Models are Few-Shot Learners", https://arxiv.org/abs/2005.14165, appendix C."""
Words: TypeAlias = tuple[str, ...]
"""The words of a text, or a run of them."""


class Turn(NamedTuple):
    """One user turn of an evaluation prompt."""

    where: str
    """The prompt and its set, for people."""
    words: Words
    """Its words."""
    shingles: frozenset[Words]
    """Its shingles."""


class Contamination:
    """Refuses a child of which a user turn gives a turn of an evaluation prompt away.

    That is: it has a long run of words in common (`words` of them, or the whole turn if that is
    shorter, but at least 8); or most shingles; or all words but one.
    """

    name = "contamination"

    def __init__(self, part: Part, apart: Mapping[str, Sequence[Prompt]]) -> None:
        self._part = part
        self._turns = list(_turns(apart))
        self._counts = Counter(s for turn in self._turns for s in turn.shingles)
        self._rare: dict[Words, list[int]] = {}
        self._runs: dict[int, dict[Words, int]] = {}
        self._edits: dict[Words, list[int]] = {}
        self._short: dict[Words, int] = {}
        for place, turn in enumerate(self._turns):
            self._enter(place, turn)

    def _enter(self, place: int, turn: Turn) -> None:
        if len(turn.words) < ONE_WORD[0]:
            self._short.setdefault(turn.words, place)
            return
        # Who shares enough of them shares one of the rarest: see eva.gates.index.
        rarest = sorted(turn.shingles, key=lambda shingle: (self._counts[shingle], shingle))
        least = least_shared(len(rarest), self._part.similarity)
        for shingle in rarest[: len(rarest) - least + 1]:
            self._rare.setdefault(shingle, []).append(place)
        for edit in _edits(turn.words):
            self._edits.setdefault(edit, []).append(place)
        length = min(self._part.words, len(turn.words))
        if length >= min(LEAST_RUN, self._part.words):
            table = self._runs.setdefault(length, {})
            for run in _windows(turn.words, length):
                table.setdefault(run, place)

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None."""
        return [self._flaw(child) for child in children]

    def _flaw(self, child: Child) -> str | None:
        turns = [tuple(words(turn)) for turn in user_turns(child.messages)]
        if len(turns) == 1 and turns[0] in self._short:
            return f"it asks what {self._turns[self._short[turns[0]]].where} asks"
        flaws = (flaw for turn in turns if (flaw := self._given_away(turn)) is not None)
        return next(flaws, None)

    def _given_away(self, asked: Words) -> str | None:
        near = self._one_word_apart(asked)
        if near is not None:
            return f"it asks what {near.where} asks, but for one word at most"
        mine = list(_windows(asked, SHINGLE))
        known = [shingle in self._counts for shingle in mine]
        if not any(known):
            return None
        run = self._run(asked, longest(known) + SHINGLE - 1)
        if run is not None:
            return f"it has a run of {run[0]} words in common with {run[1].where}"
        return self._alike(set(mine))

    def _one_word_apart(self, asked: Words) -> Turn | None:
        for edit in _edits(asked):
            for place in self._edits.get(edit, ()):
                if is_one_word_apart(asked, self._turns[place].words):
                    return self._turns[place]
        return None

    def _run(self, asked: Words, most: int) -> tuple[int, Turn] | None:
        """The length of a run that stands in an evaluation turn, and the turn."""
        for length, table in self._runs.items():
            if length <= most:
                for run in _windows(asked, length):
                    if run in table:
                        return length, self._turns[table[run]]
        return None

    def _alike(self, mine: set[Words]) -> str | None:
        """What is said of the first turn that shares enough shingles.

        Of a long turn the share that is given away counts, whatever stands around it; of a short
        one, whose words are soon found somewhere, Jaccard similarity.
        """
        near = {place for shingle in mine for place in self._rare.get(shingle, ())}
        for place in sorted(near):
            turn = self._turns[place]
            shared, size = len(mine & turn.shingles), len(turn.shingles)
            is_long = len(turn.words) >= max(self._part.words, LEAST_RUN)
            alike = shared / size if is_long else jaccard(shared, len(mine), size)
            if alike >= self._part.similarity:
                return f"it is too similar to {turn.where}: {alike:.2f}"
        return None


def _turns(apart: Mapping[str, Sequence[Prompt]]) -> Iterator[Turn]:
    for name, prompts in apart.items():
        for prompt in prompts:
            for text in user_turns(prompt.messages):
                found = tuple(words(text))
                where = f"the evaluation prompt {prompt.id} of {name}"
                yield Turn(where, found, frozenset(shingles(found, SHINGLE)))


def _windows(found: Words, length: int) -> Iterator[Words]:
    return (found[i : i + length] for i in range(len(found) - length + 1))


def _edits(found: Words) -> list[Words]:
    """The words, and the words without one; nothing where the rule of one word is not meant."""
    if not ONE_WORD[0] <= len(found) <= ONE_WORD[1]:
        return []
    return [found, *(found[:i] + found[i + 1 :] for i in range(len(found)))]


def longest(flags: Sequence[bool]) -> int:
    """The length of the longest streak of True.

    Examples:
        >>> longest([True, False, True, True])
        2
    """
    best = now = 0
    for flag in flags:
        now = now + 1 if flag else 0
        best = max(best, now)
    return best
