"""From orders to children: one request for each; a child may decide what is ordered after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from eva import seeds
from eva.adapt import Asked, chains
from eva.errors import BackEndError
from eva.evolve.operators import form
from eva.evolve.parse import NO_ANSWER, parsed
from eva.protocols import Policy
from eva.records import SELF, Child, Message, Prompt, Response, Sampling


@dataclass(frozen=True, slots=True)
class Order:
    """A child that is to be written."""

    root: str
    """The id of the parent that was given, and ..."""
    number: int
    """... which of its children this is: the two name all randomness."""
    parent: str
    """The id of the prompt that is rewritten: that parent, or an earlier child of it."""
    method: str
    """The operator."""
    change: str = ""
    """What it changes, as far as that is known before it is written."""
    request: str = ""
    """What the writer is told, but for the form of its answer; empty where `flaw` says why."""
    before: tuple[Message, ...] = ()
    """The turns that stand before the new prompt."""
    old: str | None = None
    """The text that is rewritten; None where a prompt is written from scratch."""
    shown: tuple[str, ...] = ()
    """The prompts that the request shows; a copy of one of them is no new prompt."""
    told: frozenset[str] = frozenset()
    """Sentences of the request that are no prompt."""
    flaw: str | None = None
    """Why nothing can be written."""


REFUSED = tuple(f"{NO_ANSWER}: HTTP {status}:" for status in (400, 422))
"""How the flaw of a child begins whose request a server refused."""
Grow: TypeAlias = Callable[[int, Sequence[Child]], Order | None]
"""(number of a family, its children so far) -> the order of the next child, or None."""


@dataclass(frozen=True)
class Writer:
    """A model that writes prompts: the current policy itself, or one that is only asked."""

    name: str
    """What `Child.by` records."""
    policy: Policy
    """What answers."""
    sampling: Sampling
    """How its output is drawn."""

    def written(self, orders: Sequence[Order], seed: int) -> list[Child]:
        """A child for each order, in their order; one that failed has a flaw."""

        def once(i: int, family: Sequence[Child]) -> Order | None:
            return None if family else orders[i]

        return [child for [child] in self.families(len(orders), once, seed)]

    def families(self, count: int, grow: Grow, seed: int) -> list[list[Child]]:
        """Families number 0 to `count` - 1, each written one child after the other.

        Args:
            count: The number of families.
            grow: (number of a family, its children so far) -> the next order, or None at its end.
            seed: Names all draws, with what each order names.
        """
        families: list[list[Child]] = [[] for _ in range(count)]
        waiting: dict[int, Order] = {}

        def following(i: int, answer: Response | None) -> Prompt | None:
            if answer is not None:
                families[i].append(self.child(waiting.pop(i), answer))
            while (order := grow(i, families[i])) is not None and order.flaw:
                families[i].append(self.refused(order))
            if order is None:
                return None
            waiting[i] = order
            return named(order, request(order))

        writing = seeds.child(seed, "write")
        chains(self.policy, count, following, sampling=self.sampling, seed=writing)
        return families

    def child(self, order: Order, response: Response) -> Child:
        """What became of an order that was answered."""
        text, flaw = parsed(response, order.shown, order.told)
        return Child(
            parent=order.parent,
            messages=() if flaw else (*order.before, Message(role="user", content=text)),
            method=order.method,
            change=order.change if flaw else change(order, text),
            by=self.name,
            sampling=self.sampling,
            flaw=flaw,
            raw=response.text,
        )

    def refused(self, order: Order) -> Child:
        """What became of an order that was never written."""
        return Child(parent=order.parent, method=order.method, by=self.name, flaw=order.flaw)


class Refusals:
    """Notices a server that refuses whatever it is asked, which no other prompt would mend."""

    def __init__(self) -> None:
        self._was_answered = False

    def checked(self, children: list[Child]) -> list[Child]:
        """The children of one call, of all processes together.

        Raises:
            BackEndError: Each of several was refused, and none was ever answered.
        """
        refused = [child.flaw for child in children if (child.flaw or "").startswith(REFUSED)]
        self._was_answered |= len(refused) < len(children)
        if len(refused) > 1 and not self._was_answered:
            raise BackEndError(
                f"the writer {children[0].by} refuses each of {len(refused)} requests "
                f"({refused[0]}); correct sampling or body (a key with null is left out) of "
                "creator.evolve and run the same command again"
            )
        return children


def writer_of(asked: Asked | None, policy: Policy, sampling: Sampling) -> Writer:
    """Who writes: `asked`, or without one the current policy itself."""
    return Writer(asked.name, asked, sampling) if asked else Writer(SELF, policy, sampling)


def named(order: Order, messages: tuple[Message, ...]) -> Prompt:
    """A chat for a policy, its randomness named by the order.

    Two orders may ask the very same; they differ in `data`, so their answers are drawn apart.
    """
    return Prompt(messages=messages, data={"parent": order.root, "child": order.number}, by="eva")


def request(order: Order) -> tuple[Message, ...]:
    """What the writer reads: one user turn, since not every model knows a system turn."""
    return (Message(role="user", content=f"{order.request}\n\n{form()}"),)


def change(order: Order, text: str) -> str:
    """What an operator changed, in words a person reads."""
    if order.old is None:
        return order.change
    words = f"{len(order.old.split())} -> {len(text.split())} words"
    return f"{order.change}, {words}" if order.change else words
