"""Budgets: what a run of each arm used, and a sentence wherever arms did not use the same.

Prompts, samples and gradient steps should be equal, or arms are not compared at equal budget; they
are compared run by run, on the same levels and seed. What cannot be compared is not called equal.
Tokens and evolved prompts differ by nature, for some prompts ask for longer answers and some arms
do not evolve; they are told all the same.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eva.findings import UNEQUAL, Place, Spent, listed, told
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
    is_in_a_run: bool
    """Whether `times` is that of the worst run, which others do not share; else of them all."""


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

    Arms are compared on the runs that both have, so a failed run makes no difference; sentences on
    what cannot be compared stand last.
    """
    found = []
    for count in _counts(results):
        gaps = list(_gaps(study, results, count))
        if gaps:
            said = _sentence(study, count, gaps)
            found.append(UNEQUAL + said if count in SHOULD_BE_EQUAL else said)
    return [*found, *_unknown(study, results)]


def equal(study: Study, results: Results) -> list[str]:
    """Of what should be equal, what every two arms were found to spend the same of."""
    return [
        count
        for count in SHOULD_BE_EQUAL
        if len(study.arms) > 1
        and all(known for *_, known in _pairs(study, results, count))
        and not list(_gaps(study, results, count))
    ]


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


def _pairs(
    study: Study, results: Results, count: str
) -> Iterator[tuple[Place, str, str, list[tuple[float, float]]]]:
    """For every place and two arms what their runs on the same levels and seed spent."""
    for place in tabled(study):
        used = {arm: _used(study, results, arm, place, count) for arm in study.arms}
        for one, other in itertools.combinations(study.arms, 2):
            both = [(x, used[other][key]) for key, x in used[one].items()]
            known = [(x, y) for x, y in both if x is not None and y is not None]
            yield place, one, other, known


def _gaps(study: Study, results: Results, count: str) -> Iterator[Gap]:
    """Every two arms that differ somewhere, the one that spends more first.

    Of what should be equal, and where only sums are, the worst run is told.
    """
    for place, one, other, known in _pairs(study, results, count):
        back = [(y, x) for x, y in known]
        for more, less, both in ((one, other, known), (other, one, back)):
            upper, lower = sum(x for x, _ in both), sum(y for _, y in both)
            ratios = [_ratio(x, y) for x, y in both]
            is_worst = lower > 0 and len({*ratios}) > 1
            if is_worst and (count in SHOULD_BE_EQUAL or upper == lower):
                times = max(ratios)
                if times > 1:
                    yield Gap(more, less, place, both[ratios.index(times)][0], times, True)
            elif upper > lower:
                yield Gap(more, less, place, upper / len(both), _ratio(upper, lower), False)


def _ratio(more: float, less: float) -> float:
    if less:
        return more / less
    return math.inf if more else 1.0


def _unknown(study: Study, results: Results) -> Iterator[str]:
    """A sentence for each thing that keeps arms from being compared."""
    if len(study.arms) < 2 or not results:
        return
    for place, arm in itertools.product(tabled(study), study.arms):
        if not any(taken(study, results, arm=arm, place=place, number=_one).values()):
            where = _where(study, place)
            there = " there" if where else ""
            yield f"What {arm} spends{where} is not known: it has no results{there}."
    arms = {arm for arm, _ in results}
    counted = {
        count: {arm for (arm, _), result in results.items() if count in result.spent}
        for count in SHOULD_BE_EQUAL
    }
    none = [WORDS[count][1] for count, by in counted.items() if not by]
    some = [WORDS[count][1] for count, by in counted.items() if by and by < arms]
    if none:
        yield f"Not counted in any arm: {listed(none)}."
    if some:
        yield f"Not counted in every arm: {listed(some)}."
    yield from _unpaired(study, results)


def _unpaired(study: Study, results: Results) -> Iterator[str]:
    """Two arms that both counted, but in no two runs that are alike but for the arm."""
    nouns: dict[str, list[str]] = {}
    for count in SHOULD_BE_EQUAL:
        for place, one, other, known in _pairs(study, results, count):
            both = [_mean(_used(study, results, arm, place, count)) for arm in (one, other)]
            if not known and None not in both:
                who = f"Of {one} and {other}{_where(study, place)} no two runs on the same seed"
                nouns.setdefault(who, []).append(WORDS[count][1])
    for who, what in nouns.items():
        yield f"{who} can be compared: {listed(what)}."


def _one(_: Result) -> float:
    return 1.0


def _sentence(study: Study, count: str, gaps: Sequence[Gap]) -> str:
    verb, noun = WORDS.get(count, ("spend", count))
    idle = [g.less for g in gaps if g.times == math.inf and not g.is_in_a_run]
    idle = [arm for arm in study.arms if arm in idle]
    none = f"{listed(idle)} {verb if len(idle) > 1 else verb + 's'}"
    rest = [gap for gap in gaps if gap.is_in_a_run or gap.times < math.inf]
    if rest:
        most = max(rest, key=lambda gap: gap.times)
        said = f"{_compared(most, verb, noun)}{_where(study, most.place)}"
        return said + (f"; {none} none" if idle else "") + "."
    most = max(gaps, key=lambda gap: gap.spent)
    busy = {gap.more for gap in gaps}
    who = f"{most.more} {verb}s" if len(busy) == 1 else f"the others {verb} up to"
    return f"{none} no {noun}, {who} {most.spent:,.0f} in a run."


def _compared(gap: Gap, verb: str, noun: str) -> str:
    if gap.times == math.inf:
        spent = f"{gap.more} {verb}s {gap.spent:,.0f} {noun}"
        return f"{spent} in a run in which {gap.less} {verb}s none"
    times = f"{_times(gap.times)} times the {noun} of {gap.less}"
    return f"{gap.more} {verb}s " + (f"up to {times} in a run" if gap.is_in_a_run else times)


def _where(study: Study, place: Place) -> str:
    return f" with {told(place)}" if len(tabled(study)) > 1 else ""


def _times(ratio: float) -> str:
    """With two decimals, or as many as tell it from 1, six at most."""
    shown = [f"{ratio:.{digits}f}" for digits in range(2, 7)]
    return next((text for text in shown if float(text) != 1), "1.000001")
