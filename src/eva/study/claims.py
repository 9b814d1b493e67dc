"""Verdicts: what became of the claims that a study made before its runs.

A claim is judged by a paired t-test against its margin, corrected for all claims of the study
(Holm), so that a study with many claims finds no more by chance than one with a single claim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva.findings import Measured, Outcome, Place, Verdict, told
from eva.formulas.statistics import holm
from eva.study.plan import Claim, Study
from eva.study.table import RESOLVED, Results, difference, ending, p_of, tabled, taken

IN_DISTRIBUTION = "x0"
"""The held-out set that is drawn like the first prompts, as the shipped recipes call it."""
MINUS = "\u2212"


@dataclass(frozen=True)
class Asked:
    """A claim in one place, and what the runs say of it."""

    claim: Claim
    """The claim."""
    place: Place
    """Where it is judged."""
    gap: Measured | None
    """better - than; None without one pair."""
    costs: tuple[tuple[str, Measured], ...]
    """The same difference on the same metric of the other held-out sets."""


def verdicts(study: Study, results: Results) -> tuple[list[Verdict], list[str]]:
    """A verdict for each claim in each of its places.

    Returns:
        The verdicts, and a sentence for each claim that no pair of runs can speak of.
    """
    asked = [
        Asked(claim, place, _gap(study, results, claim, place, claim.on),
              tuple(_costs(study, results, claim, place)))
        for claim in study.claims
        for place in tabled(study)
        if claim.where.items() <= place.items()
    ]  # fmt: skip
    judged = [one for one in asked if one.gap]
    p_N = [p_of(one.gap, one.claim.by) if one.gap else None for one in judged]
    corrected_N = holm(np.array([math.nan if p is None else p for p in p_N]))
    found = [_verdict(*one) for one in zip(judged, p_N, corrected_N.tolist(), strict=True)]
    return found, [_unjudged(one) for one in asked if not one.gap]


def decimal(value: float) -> str:
    """A number with three decimals, without the zero before the point, with a true minus sign.

    Examples:
        >>> decimal(0.0344), decimal(1.5), decimal(-0.0001)
        ('.034', '1.500', '.000')
    """
    digits = f"{abs(value):.3f}"
    shown = digits.removeprefix("0")
    return MINUS + shown if value < 0 and float(digits) else shown


def pairs(found: Measured) -> str:
    """How many pairs a difference has, and of how many: "10 pairs", "9 of 10 pairs"."""
    planned = found.runs + found.missing
    counted = f"{found.runs} of {planned}" if found.missing else str(planned)
    return f"{counted} pair{'' if planned == 1 else 's'}"


def _gap(study: Study, results: Results, claim: Claim, place: Place, on: str) -> Measured | None:
    better, than = (
        taken(study, results, arm=arm, place=place, number=ending(on))
        for arm in (claim.better, claim.than)
    )
    return difference(better, than)


def _costs(
    study: Study, results: Results, claim: Claim, place: Place
) -> Sequence[tuple[str, Measured]]:
    """The difference on the other held-out sets that are tabled, by metric."""
    name, _, rest = claim.on.partition("/")
    others = [metric for metric in study.metrics if metric.partition("/")[::2] != (name, rest)]
    found = [
        (metric, _gap(study, results, claim, place, metric))
        for metric in others
        if metric.partition("/")[2] == rest
    ]
    return [(metric, gap) for metric, gap in found if gap]


def _verdict(asked: Asked, p: float | None, corrected: float) -> Verdict:
    claim, gap = asked.claim, asked.gap
    assert gap
    outcome: Outcome = "not resolved"
    if corrected < RESOLVED:  # NaN is not
        outcome = "holds" if gap.mean > claim.by else "does not hold"
    known = None if math.isnan(corrected) else corrected
    return Verdict(
        place=asked.place,
        better=claim.better,
        than=claim.than,
        on=claim.on,
        by=claim.by,
        difference=gap,
        p=p,
        corrected=known,
        outcome=outcome,
        sentence=_sentence(asked, gap, known, outcome),
    )


def _sentence(asked: Asked, gap: Measured, corrected: float | None, outcome: Outcome) -> str:
    claim = asked.claim
    margin = f", where more than {decimal(claim.by)} is claimed" if claim.by else ""
    evidence = [pairs(gap), *([] if corrected is None else [f"p {_p(corrected)} corrected"])]
    if gap.low is not None and gap.high is not None:
        evidence.insert(0, f"95 % interval {decimal(gap.low)} to {decimal(gap.high)}")
    said = (
        f"{_opening(asked)} {claim.better} ends {_apart(gap, claim.than)}{margin} "
        f"({', '.join(evidence)}): {outcome}"
    )
    for metric, cost in asked.costs:
        is_start = metric.partition("/")[0] == IN_DISTRIBUTION
        where = f"in distribution ({metric})" if is_start else f"on {metric}"
        said += f"; {where} it ends {_apart(cost)}"
        if cost.low is not None and cost.high is not None:
            said += f" ({decimal(cost.low)} to {decimal(cost.high)})"
    return said + "."


def _unjudged(asked: Asked) -> str:
    claim = asked.claim
    return (
        f"{_opening(asked)} {claim.better} cannot be set against {claim.than}: there is no pair of "
        "runs that both measured it."
    )


def _opening(asked: Asked) -> str:
    where = told(asked.place)
    return f"With {where}, on {asked.claim.on}" if where else f"On {asked.claim.on}"


def _apart(gap: Measured, than: str = "") -> str:
    """How far above or below, as far as three decimals tell."""
    size = decimal(abs(gap.mean))
    if size == ".000":
        return f"level with {than}" if than else "level"
    return f"{size} {'above' if gap.mean > 0 else 'below'} {than}".rstrip()


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"= {decimal(p)}"
