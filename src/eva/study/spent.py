"""Budgets: what a run of each arm used, and a sentence wherever arms did not use the same.

Prompts, samples and gradient steps should be equal, or arms are not compared at equal budget.
Tokens and evolved prompts differ by nature, for some prompts ask for longer answers and some arms
do not evolve; they are told all the same.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eva.findings import UNEQUAL, Place, Spent, told
from eva.study.plan import Study
from eva.study.results import Result
from eva.study.table import Results, Taken, tabled, taken

SHOULD_BE_EQUAL = ("prompts", "samples", "steps")
"""What arms should spend the same of."""
BY_NATURE = ("tokens", "evolver_calls")
"""What differs by nature."""
WORDS: Mapping[str, tuple[str, str]] = {
    "prompts": ("answer", "prompts"),
    "samples": ("draw", "samples"),
    "steps": ("take", "gradient steps"),
    "tokens": ("generate", "tokens"),
    "evolver_calls": ("evolve", "prompts"),
}
"""What an arm does with what is counted."""


@dataclass(frozen=True)
class Gap:
    """Two arms in one place, on the runs that both have."""

    more: str
    """The arm that spends more."""
    less: str
    """The other one."""
    place: Place
    """Where."""
    spent: float
    """What a run of `more` spends."""
    times: float
    """How many times that of `less`; infinite where that is 0."""


def spent(study: Study, results: Results) -> list[Spent]:
    """The mean over the runs of each arm in each place, of everything that was counted."""
    found = []
    for place, arm in itertools.product(tabled(study), study.arms):
        means = {
            count: _mean(_used(study, results, arm, place, count)) for count in _counts(results)
        }
        known = {count: mean for count, mean in means.items() if mean is not None}
        if known:
            found.append(Spent(place=place, arm=arm, counts=known))
    return found


def unequal(study: Study, results: Results) -> list[str]:
    """A sentence for each count in which arms differ at all, with the greatest ratio.

    Arms are compared on the runs that both have, so a failed run makes no difference.
    """
    found = []
    for count in _counts(results):
        gaps = list(_gaps(study, results, count))
        if gaps:
            said = _sentence(study, count, gaps)
            found.append(UNEQUAL + said if count in SHOULD_BE_EQUAL else said)
    return found


def _counts(results: Results) -> list[str]:
    """What was counted, the known counts first."""
    counted = {count for result in results.values() for count in result.spent}
    known = [*SHOULD_BE_EQUAL, *BY_NATURE]
    return [count for count in known if count in counted] + sorted(counted - {*known})


def _used(study: Study, results: Results, arm: str, place: Place, count: str) -> Taken:
    def number(result: Result) -> float | None:
        return result.spent.get(count)

    return taken(study, results, arm=arm, place=place, number=number)


def _mean(used: Taken) -> float | None:
    known = [number for number in used.values() if number is not None]
    return sum(known) / len(known) if known else None


def _gaps(study: Study, results: Results, count: str) -> Iterator[Gap]:
    """Every two arms that differ somewhere, the one that spends more first."""
    for place in tabled(study):
        used = {arm: _used(study, results, arm, place, count) for arm in study.arms}
        for more, less in itertools.permutations(study.arms, 2):
            both = [
                (x, y)
                for key, x in used[more].items()
                if x is not None and (y := used[less][key]) is not None
            ]
            upper, lower = sum(x for x, _ in both), sum(y for _, y in both)
            if upper > lower:
                times = upper / lower if lower else math.inf
                yield Gap(more, less, place, upper / len(both), times)


def _sentence(study: Study, count: str, gaps: Sequence[Gap]) -> str:
    verb, noun = WORDS.get(count, ("spend", count))
    ratios = [gap for gap in gaps if gap.times < math.inf]
    idle = [arm for arm in study.arms if any(g.less == arm for g in gaps if g.times == math.inf)]
    none = f"{_listed(idle)} {verb if len(idle) > 1 else verb + 's'}"
    if ratios:
        most = max(ratios, key=lambda gap: gap.times)
        said = f"{most.more} {verb}s {_times(most.times)} times the {noun} of {most.less}"
        return said + _where(study, most) + (f"; {none} none" if idle else "") + "."
    most = max(gaps, key=lambda gap: gap.spent)
    busy = {gap.more for gap in gaps}
    who = f"{most.more} {verb}s" if len(busy) == 1 else f"the others {verb} up to"
    return f"{none} no {noun}, {who} {most.spent:,.0f} in a run."


def _where(study: Study, gap: Gap) -> str:
    return f" with {told(gap.place)}" if len(tabled(study)) > 1 else ""


def _times(ratio: float) -> str:
    """With two decimals, or as many as tell it from 1, six at most."""
    shown = [f"{ratio:.{digits}f}" for digits in range(2, 7)]
    return next((text for text in shown if float(text) != 1), "1.000001")


def _listed(arms: Sequence[str]) -> str:
    return ", ".join(arms[:-1]) + f" and {arms[-1]}" if len(arms) > 1 else "".join(arms)
