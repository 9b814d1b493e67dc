"""The metrics that a study names: what recipes tell of them beforehand, and what runs measure.

A typo is seen before anything is played, or after the first run of each kind that could know it.
"""

import json
from collections.abc import Iterable, Sequence

from eva.errors import RecipeError
from eva.recipe import nearest
from eva.study.fair import measures
from eva.study.plan import Played, Study
from eva.study.table import ROUND

MODES = ("greedy", "sampled")
"""How held-out prompts are answered: the second part of the name of a metric."""


def asked(study: Study) -> list[tuple[str, str]]:
    """Where metrics are named, and their names; without the one that settings are chosen by."""
    named = [("metrics", name) for name in study.metrics]
    named += [("curves", name) for name in study.curves]
    return named + [(f"claims.{k}.on", claim.on) for k, claim in enumerate(study.claims)]


def chosen_by(study: Study) -> list[tuple[str, str]]:
    """Where the metric is named that settings are chosen by, and its name; empty without a grid."""
    return [("tune.by", study.tune.by)] if study.tune else []


def check_sets(study: Study, cells: Iterable[Played]) -> None:
    """Refuse metrics of held-out sets that no recipe has.

    Raises:
        RecipeError: Names the sets and modes that there are.
    """
    held_out = [cell.recipe.evaluate for cell in cells if cell.recipe.evaluate]
    known = {f"{name}/{mode}" for one in held_out for name in one.sets for mode in MODES}
    for place, name in (*chosen_by(study), *asked(study)):
        head, _, last = name.rpartition("/")
        if not name.startswith(ROUND) and (head not in known or not last):
            listed = nearest(head, known) if known else "no recipe has evaluate"
            raise RecipeError(
                f"{place} names {name!r}, which no run measures: it is no metric of a round "
                f"({ROUND}...), nor of a held-out set (set/mode/metric); {listed}"
            )


class Awaited:
    """Metrics that some runs should measure, and what those that ended have measured."""

    def __init__(self, named: Sequence[tuple[str, str]], cells: Iterable[Played]) -> None:
        self._named, self._known = named, set[str]()
        every = [_kinds(cell) for cell in cells]
        self._held_out = {held_out for held_out, _ in every}
        self._rounds = {rounds for _, rounds in every}

    def see(self, cell: Played) -> None:
        """A cell has ended.

        Raises:
            RecipeError: A metric is not measured, though a run of each kind has ended well: of each
                evaluation, or for a metric of the rounds of each arm in each place. It names the
                nearest, and those that are.
        """
        if cell.result is None:
            return
        held_out, rounds = _kinds(cell)
        self._held_out.discard(held_out)
        self._rounds.discard(rounds)
        self._known |= {name for numbers in cell.result.evals.values() for name in numbers}
        measured = cell.result.rounds.values()
        self._known |= {f"{ROUND}{name}" for numbers in measured for name in numbers}
        for place, name in self._named:
            missing = self._rounds if name.startswith(ROUND) else self._held_out
            if name not in self._known and not missing:
                raise RecipeError(
                    f"{place} names {name!r}, which no run measured; {nearest(name, self._known)}"
                )


def _kinds(cell: Played) -> tuple[str, str]:
    """What held-out metrics of a run depend on, and what metrics of its rounds may depend on."""
    place = json.dumps([cell.arm, cell.place])
    return json.dumps(measures(cell.recipe), sort_keys=True), place
