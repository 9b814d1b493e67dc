"""Evol-Instruct: a language model rewrites prompts by operators that are drawn by weight.

In a chain child k rewrites child k-1, and where that has a flaw, the last one without; otherwise
every child rewrites the parent. A child carries none of its parent's `data`: a reference answer or
a list of constraints is no longer right for it, and eva cannot know which columns would be. A
reward that reads `data` must do without, or give None: missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from eva import seeds
from eva.adapt import Asked, release
from eva.evolve.operators import Template, operators, template
from eva.evolve.turns import first_user_text, transcript, turn_flaw
from eva.evolve.writing import Order, Refusals, Writer, named, writer_of
from eva.parts.evolvers import EvolInstruct as Part
from eva.protocols import Policy
from eva.records import Child, Message, Prompt, Response, ScoredPrompt

ANY_OTHER = "(there is none: take any domain that is far from that of the first)"
"""What {other} becomes for a parent that is alone."""


class Drawn(NamedTuple):
    """What is drawn for one child."""

    method: str
    """The operator."""
    other: Prompt | None
    """The second prompt, where the operator shows one and there is one."""


class EvolInstruct:
    """The evolver of a recipe; its templates are read once."""

    def __init__(self, part: Part, writer: Asked | None) -> None:
        """Read the templates.

        Args:
            part: The settings.
            writer: Who writes; None for the current policy itself.

        Raises:
            RecipeError: An operator is unknown, or a template cannot be used.
        """
        self._part, self._writer, self._refusals = part, writer, Refusals()
        self._names = list(part.operators)
        cumulated = np.cumsum(list(part.operators.values()))
        self._cumulated = cumulated / cumulated[-1]
        self._operators = operators(self._names, part.templates)
        self._conversation = template("_conversation", "transcript", part.templates)
        self._follow_up = template("follow_up", "transcript", part.templates)

    def release(self) -> None:
        """Give the writer's memory back."""
        release(self._writer)

    def __call__(
        self, parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int
    ) -> list[Child]:
        """`children` children of each parent, in the order of the parents.

        All draws are named by the parent and the number of the child, so children do not depend on
        which other parents are evolved beside it. What {other} shows does: it is drawn from the
        parents of the same call, which `chunk` of the recipe, a part of its digest, holds fixed.
        """
        everyone = range(len(parents))
        return self._refusals.checked(self.children_of(everyone, parents, policy, seed))

    def children_of(
        self, chosen: range, parents: Sequence[ScoredPrompt], policy: Policy, seed: int
    ) -> list[Child]:
        """The children of the chosen ones among the parents of a call."""
        scribe = writer_of(self._writer, policy, self._part.sampling)
        given = [parent.prompt for parent in parents]
        own, children = [given[i] for i in chosen], self._part.children

        @cache
        def drawn(i: int) -> list[Drawn]:
            return self._drawn(chosen[i], given, seed)

        def order(i: int, k: int, elder: Sequence[Child]) -> Order:
            sound = (child for child in reversed(elder) if child.flaw is None)
            return self._order(own[i].id, k, next(sound, own[i]), drawn(i)[k])

        def chained(i: int, family: Sequence[Child]) -> Order | None:
            return order(i, len(family), family) if len(family) < children else None

        def single(place: int, family: Sequence[Child]) -> Order | None:
            return None if family else order(*divmod(place, children), ())

        if self._part.turns == "follow_up":
            families = self._follow_ups(scribe, policy, len(own), order, seed)
        elif self._part.chained:
            families = scribe.families(len(own), chained, seed)
        else:
            families = scribe.families(len(own) * children, single, seed)
        return [child for family in families for child in family]

    def _follow_ups(
        self,
        scribe: Writer,
        policy: Policy,
        count: int,
        order: Callable[[int, int, Sequence[Child]], Order],
        seed: int,
    ) -> list[list[Child]]:
        """Families of turns after an answer of the policy: it answers all, then all are written."""
        families: list[list[Child]] = [[] for _ in range(count)]
        numbers = range(self._part.children)
        for side_by_side in [[k] for k in numbers] if self._part.chained else [numbers]:
            places = [(i, k) for i in range(count) for k in side_by_side]
            orders = self._answered([order(i, k, families[i]) for i, k in places], policy, seed)
            for (i, _), child in zip(places, scribe.written(orders, seed), strict=True):
                families[i].append(child)
        return families

    def _drawn(self, i: int, given: Sequence[Prompt], seed: int) -> list[Drawn]:
        """The operators of all children of parent i, and who stands beside it."""
        if self._part.turns == "follow_up":
            return [Drawn("follow_up", None)] * self._part.children
        rng = seeds.rng(seed, given[i].id)
        uniform = rng.random(self._part.children)
        picked = np.searchsorted(self._cumulated, uniform, side="right")
        names = [self._names[place] for place in picked.tolist()]
        return [
            Drawn(name, _other(i, given, rng) if self._operators[name].needs("other") else None)
            for name in names
        ]

    def _order(self, root: str, number: int, source: Prompt | Child, drawn: Drawn) -> Order:
        """What is to be written in place of the last turn of `source`, or after that turn."""
        flaw = turn_flaw(source.messages)
        if flaw:
            return Order(root, number, source.id, drawn.method, flaw=flaw)
        *before, last = source.messages
        if self._part.turns == "follow_up":
            shown = tuple(m.content for m in source.messages if m.role == "user")
            order = Order(root, number, source.id, drawn.method, "after an answer")
            return replace(order, before=source.messages, shown=shown)
        operator = self._operators[drawn.method]
        other = first_user_text(drawn.other.messages) if drawn.other else None
        return Order(
            root=root,
            number=number,
            parent=source.id,
            method=drawn.method,
            change=f"with {drawn.other.id}" if drawn.other else "",
            request=self._request(operator, before, last.content, other or ANY_OTHER),
            before=tuple(before),
            old=last.content,
            shown=(last.content,) if other is None else (last.content, other),
            told=operator.told,
        )

    def _request(self, operator: Template, before: Sequence[Message], old: str, other: str) -> str:
        request = operator.filled(prompt=old, other=other)
        if not before:
            return request
        return f"{request}\n\n{self._conversation.filled(transcript=transcript(before))}"

    def _answered(self, orders: Sequence[Order], policy: Policy, seed: int) -> list[Order]:
        """Orders for the turn after an answer of the current policy, which has its say first."""
        asked = [named(order, order.before) for order in orders if not order.flaw]
        drawing, sampling = seeds.child(seed, "answer"), self._part.sampling
        answers = iter(policy(asked, 1, sampling=sampling, seed=drawing) if asked else [])
        return [order if order.flaw else self._after(order, next(answers)[0]) for order in orders]

    def _after(self, order: Order, answer: Response) -> Order:
        flaw = _answer_flaw(answer)
        if flaw:
            return replace(order, flaw=flaw)
        turns = (*order.before, Message(role="assistant", content=answer.text))
        request = self._follow_up.filled(transcript=transcript(turns))
        return replace(order, before=turns, request=request, told=self._follow_up.told)


def _other(i: int, given: Sequence[Prompt], rng: np.random.Generator) -> Prompt | None:
    """Another of the given prompts than number i; None if it is alone."""
    if len(given) == 1:
        return None
    place = int(rng.integers(len(given) - 1))
    return given[place + (place >= i)]


def _answer_flaw(answer: Response) -> str | None:
    """Why no turn can follow an answer of the policy, or None."""
    if answer.finish == "error":
        return f"the policy gave no answer that a turn could follow: {answer.error}"
    if answer.finish == "length":
        return "the policy's answer, which the turn would follow, was cut at the token limit"
    is_empty = not answer.text.strip()
    return "the policy's answer, which the turn would follow, is empty" if is_empty else None
