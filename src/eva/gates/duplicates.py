"""The gate of near-duplicates: a child that says what another prompt says already."""

from collections.abc import Sequence
from functools import cache

from eva.gates.index import Index, Keys, Print, Rule, first, keys, printed
from eva.gates.likeness import BROUGHT, brought, is_one_word_apart, shingle_similarity
from eva.parts.gates import Duplicates as Part
from eva.protocols import Around
from eva.records import Child, Prompt

WHERE = {"siblings": "another child of this round", "pool": "the pool", "history": "earlier rounds"}
"""How a flaw calls the place of the other prompt."""


class Duplicates:
    """Refuses a child that repeats an earlier sound child, or a prompt of the pool or history.

    Compared are last user turns, among chats whose other turns are the same. The parent is left to
    the gate of copies: a child shares words with it by design.
    """

    name = "duplicates"

    def __init__(self, part: Part) -> None:
        self._against = part.against
        self._rule = Rule(part.similarity, part.shingle, part.one_word)
        self._held: dict[str, tuple[tuple[Prompt, ...], Index]] = {}

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None."""
        prints = [printed(child.messages) for child in children]
        asking = keys(prints, self._rule)
        flaws: list[str | None] = [None] * len(children)
        for where, prompts in (("pool", around.pool), ("history", around.history)):
            if where in self._against and prompts:
                self._compare(where, prompts, children, prints, asking, flaws)
        if "siblings" in self._against:
            self._compare_siblings(children, prints, asking, flaws)
        return flaws

    def _compare(
        self,
        where: str,
        prompts: Sequence[Prompt],
        children: Sequence[Child],
        prints: Sequence[Print],
        asking: Keys,
        flaws: list[str | None],
    ) -> None:
        """Note the flaws of children that repeat one of `prompts`."""

        @cache
        def of(place: int) -> Print:
            return printed(prompts[place].messages)

        for i, met in self._index(where, prompts).candidates(asking).items():

            def repeats(place: int, i: int = i) -> bool:
                is_parent = prompts[place].id == children[i].parent
                return not is_parent and is_same(prints[i], of(place), self._rule)

            if flaws[i] is None:
                place = first(met, len(prompts), repeats)
                if place is not None:
                    flaws[i] = said(prints[i], of(place), prompts[place].id, where, self._rule)

    def _compare_siblings(
        self,
        children: Sequence[Child],
        prints: Sequence[Print],
        asking: Keys,
        flaws: list[str | None],
    ) -> None:
        """Note the flaws of children that repeat an earlier one without a flaw."""
        candidates = Index(asking, self._rule.similarity).candidates(asking, themselves=True)
        for i in sorted(candidates):  # in order: whether an earlier one has a flaw is known

            def repeats(place: int, i: int = i) -> bool:
                is_sound = flaws[place] is None and children[place].id != children[i].parent
                return is_sound and is_same(prints[i], prints[place], self._rule)

            if flaws[i] is None:
                place = first(candidates[i], i, repeats)
                if place is not None:
                    other = children[place].id
                    flaws[i] = said(prints[i], prints[place], other, "siblings", self._rule)

    def _index(self, where: str, prompts: Sequence[Prompt]) -> Index:
        """The index of prompts; the last one again if they are still the same."""
        held = self._held.get(where)
        if held is not None and are_same_prompts(held[0], prompts):
            return held[1]
        known = keys((printed(prompt.messages) for prompt in prompts), self._rule)
        index = Index(known, self._rule.similarity)
        self._held[where] = (tuple(prompts), index)
        return index


def is_same(child: Print, other: Print, rule: Rule) -> bool:
    """Whether a child repeats another prompt."""
    if child.before != other.before:
        return False
    if rule.one_word and is_one_word_apart(child.words, other.words):
        return True
    alike = shingle_similarity(child.words, other.words, rule.shingle)
    return alike >= rule.similarity and brought(child.words, other.words) < BROUGHT


def said(child: Print, other: Print, id: str, where: str, rule: Rule) -> str:
    """The flaw of a child that repeats the prompt `id`."""
    alike = shingle_similarity(child.words, other.words, rule.shingle)
    how = f"similarity {alike:.2f}" if alike >= rule.similarity else "they differ in one word"
    return f"it repeats {id} of {WHERE[where]} ({how})"


def are_same_prompts(held: Sequence[Prompt], prompts: Sequence[Prompt]) -> bool:
    """Whether two lists hold the same prompts in the same order."""
    return len(held) == len(prompts) and all(
        a is b or a.id == b.id for a, b in zip(held, prompts, strict=True)
    )
