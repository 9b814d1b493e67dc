"""The evolver of the playground: rules instead of a language model, and no look at solvability.

In-depth evolution makes a prompt ask for more: a constraint is added, or a value is made harder.
In-breadth evolution asks for something else: a constraint is replaced. As with a language model,
some children cannot be answered by anyone; to find those out is the work of selection. The rules
are our choice and mirror the two directions of Evol-Instruct.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eva import seeds
from eva.parts.evolvers import PlaygroundEvolver
from eva.playground.domain import (
    MOST_CONSTRAINTS,
    WORDS,
    Constraint,
    Constraints,
    canonical,
    parse_chat,
    render,
)
from eva.playground.sets import banned
from eva.playground.tasks import pick
from eva.protocols import Evolver, Policy
from eva.records import Child, Message, Prompt, ScoredPrompt

BY = "playground-rules"
"""Who writes the children."""
INSERT = 0.75
"""Share of in-depth rewrites that add a constraint; the rest makes a value harder."""


class Edit(NamedTuple):
    """A rewrite of a prompt's constraints."""

    constraints: Constraints
    """What the child asks."""
    change: str
    """What is new, in words a person reads."""


def make_evolver(config: PlaygroundEvolver) -> Evolver:
    """The evolver of a recipe; it needs no policy.

    The randomness of one parent is ``seeds.rng(seed, parent.prompt.id)``: its children do not
    depend on which other parents are evolved beside it.
    """

    def evolve(parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int) -> list[Child]:
        """`config.children` children of each parent, in the order of the parents."""
        families = (
            family(parent.prompt, config, seeds.rng(seed, parent.prompt.id)) for parent in parents
        )
        return [child for children in families for child in children]

    return evolve


def family(parent: Prompt, config: PlaygroundEvolver, rng: np.random.Generator) -> list[Child]:
    """The children of one parent; in a chain, each rewrites the last one that has no flaw."""
    source, messages = parent.id, parent.messages
    children = []
    for _ in range(config.children):
        method = "in-depth" if rng.random() < config.in_depth else "in-breadth"
        child = rewritten(source, messages, method, rng)
        children.append(child)
        if config.chained and child.flaw is None:
            source, messages = child.id, child.messages
    return children


def rewritten(
    source: str, messages: Sequence[Message], method: str, rng: np.random.Generator
) -> Child:
    """One child of the prompt `source`, whose chat is `messages`; with a flaw if it is useless."""
    constraints = parse_chat(messages)
    if isinstance(constraints, str):
        raw = "\n".join(message.content for message in messages)
        flaw = f"the parent is no prompt of the playground: {constraints}"
        return Child(parent=source, method=method, by=BY, flaw=flaw, raw=raw)
    edit = deepened(constraints, rng) if method == "in-depth" else broadened(constraints, rng)
    if edit is None:
        flaw = f"the parent has {len(constraints)} constraints and none can be made harder"
        return Child(parent=source, method=method, by=BY, flaw=flaw, raw=render(constraints))
    chat = (Message(role="user", content=render(edit.constraints)),)
    same = canonical(edit.constraints) == canonical(constraints)
    return Child(
        parent=source,
        messages=chat,
        method=method,
        change=edit.change,
        by=BY,
        flaw="asks the same as its parent" if same else banned(chat),
    )


def deepened(constraints: Constraints, rng: np.random.Generator) -> Edit | None:
    """In-depth: asks for more, or None where there is no room to."""
    inserts = rng.random() < INSERT
    room = len(constraints) < MOST_CONSTRAINTS
    places = [place for place, old in enumerate(constraints) if harder(old)]
    if room and (inserts or not places):
        new = other(constraints, rng)
        place = pick(range(len(constraints) + 1), rng)
        return Edit((*constraints[:place], new, *constraints[place:]), f"+ {new}")
    if not places:
        return None
    place = pick(places, rng)
    tightened = harder(constraints[place])
    assert tightened is not None
    change = f"{constraints[place]} -> {tightened.value}"
    return Edit(replaced(constraints, place, tightened), change)


def broadened(constraints: Constraints, rng: np.random.Generator) -> Edit:
    """In-breadth: one constraint gives way to another."""
    place = pick(range(len(constraints)), rng)
    new = other(constraints, rng)
    return Edit(replaced(constraints, place, new), f"{constraints[place]} -> {new}")


def harder(constraint: Constraint) -> Constraint | None:
    """The constraint with its next harder value, or None if it has none.

    Examples:
        >>> harder(Constraint("max", 6))
        Constraint(word='max', value=5)
        >>> harder(Constraint("even")) is None
        True
    """
    word = WORDS[constraint.word]
    value = constraint.value + word.harder
    return Constraint(constraint.word, value) if word.harder and value in word.values else None


def other(constraints: Constraints, rng: np.random.Generator) -> Constraint:
    """A constraint that the prompt does not have yet: any word, then any of its values."""
    while True:
        name = pick(list(WORDS), rng)
        new = Constraint(name, pick(WORDS[name].values or (0,), rng))
        if new not in constraints:
            return new


def replaced(constraints: Constraints, place: int, new: Constraint) -> Constraints:
    """The constraints with another one at `place`."""
    return (*constraints[:place], new, *constraints[place + 1 :])
