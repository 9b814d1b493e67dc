"""Self-Instruct: a language model writes prompts from scratch, after examples.

After Wang et al., https://arxiv.org/abs/2212.10560. A child belongs to the parent that stands among
the examples; it keeps that parent's system turn and carries none of its `data`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eva import seeds
from eva.adapt import Asked, release
from eva.evolve.operators import read, template
from eva.evolve.turns import first_user_text, system_turns
from eva.evolve.writing import Order, Refusals, writer_of
from eva.parts.evolvers import SelfInstruct as Part
from eva.protocols import Policy
from eva.records import Child, Prompt, ScoredPrompt

METHOD = "self_instruct"
"""What a child records as its operator."""


class SelfInstruct:
    """The evolver of a recipe; its template is read once."""

    def __init__(self, part: Part, writer: Asked | None) -> None:
        """Read the template.

        Args:
            part: The settings.
            writer: Who writes; None for the current policy itself.

        Raises:
            RecipeError: The template cannot be read, or has no {examples}.
        """
        self._part, self._writer, self._refusals = part, writer, Refusals()
        own = part.template
        self._template = read(Path(own), "examples") if own else template(METHOD, "examples")

    def release(self) -> None:
        """Give the writer's memory back."""
        release(self._writer)

    def __call__(
        self, parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int
    ) -> list[Child]:
        """`children` new prompts for each parent, in the order of the parents.

        The examples beside a parent are drawn from the parents of the same call, by a draw that it
        names. So children depend on how parents are cut: by `chunk` of the recipe, which is a part
        of its digest and holds them fixed.
        """
        everyone = range(len(parents))
        return self._refusals.checked(self.children_of(everyone, parents, policy, seed))

    def children_of(
        self, chosen: range, parents: Sequence[ScoredPrompt], policy: Policy, seed: int
    ) -> list[Child]:
        """The children of the chosen ones among the parents of a call."""
        given = [parent.prompt for parent in parents]
        texts = [first_user_text(prompt.messages) for prompt in given]
        orders = [
            order
            for i in chosen
            for order in self._orders(i, given[i], texts, seeds.rng(seed, given[i].id))
        ]
        return writer_of(self._writer, policy, self._part.sampling).written(orders, seed)

    def _orders(
        self, i: int, parent: Prompt, texts: Sequence[str | None], rng: np.random.Generator
    ) -> list[Order]:
        return [
            self._order(k, parent, _examples(i, texts, self._part.examples, rng))
            for k in range(self._part.children)
        ]

    def _order(self, number: int, parent: Prompt, examples: tuple[str, ...]) -> Order:
        listed = "\n\n".join(f"<example_prompt>\n{text}\n</example_prompt>" for text in examples)
        return Order(
            root=parent.id,
            number=number,
            parent=parent.id,
            method=METHOD,
            change=f"after {len(examples)} example{'s' * (len(examples) > 1)}",
            request=self._template.filled(examples=listed),
            before=system_turns(parent.messages),
            shown=examples,
            told=self._template.told,
            flaw=None if examples else "neither the parent nor another one has a turn of the user",
        )


def _examples(
    i: int, texts: Sequence[str | None], count: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """Parent i and others, in random order, at most `count`; without those that have no text."""
    beside = rng.choice(len(texts) - 1, size=min(count, len(texts)) - 1, replace=False)
    chosen = [i, *(int(j) + (j >= i) for j in beside)]
    found = (texts[chosen[place]] for place in rng.permutation(len(chosen)))
    return tuple(text for text in found if text is not None)
