"""Verdicts: what became of the claims that a study made before its runs.

A claim is judged by a paired t-test over seeds against its margin, corrected for all claims of the
study (Holm), so that a study with many claims finds no more by chance than one with a single claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva.findings import Measured, Outcome, Place, Verdict, decimal, decimals, told
from eva.formulas.statistics import holm
from eva.study.plan import Claim, Study
from eva.study.table import RESOLVED, Results, difference, ending, is_flat, p_of, tabled, taken

IN_DISTRIBUTION = "x0"
"""The held-out set that is drawn like the first prompts, as the shipped recipes call it."""


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
    pooled: tuple[str, ...]
    """What a seed is averaged over, in words: "3 levels of theta_0"."""


def verdicts(study: Study, results: Results) -> tuple[list[Verdict], list[str]]:
    """A verdict for each claim in each of its places.

    Returns:
        The verdicts, and a sentence for each claim that no pair of runs can speak of.
    """
    pooled = tuple(
        f"{len(study.factors[name])} levels of {name}"
        for name in study.pool
        if len(study.factors[name]) > 1
    )
    asked = [
        Asked(claim, place, _gap(study, results, claim, place, claim.on),
              tuple(_costs(study, results, claim, place)), pooled)
        for claim in study.claims
        for place in tabled(study)
        if claim.where.items() <= place.items()
    ]  # fmt: skip
    p_N = [p_of(one.gap, one.claim.by) if one.gap else None for one in asked]
    # What a failed run leaves without a p was asked all the same: it makes the others no easier.
    corrected_N = holm(np.array([1.0 if p is None else p for p in p_N])).tolist()
    found = [
        _verdict(one, one.gap, p, None if p is None else corrected)
        for one, p, corrected in zip(asked, p_N, corrected_N, strict=True)
        if one.gap
    ]
    return found, [_unjudged(one) for one in asked if not one.gap]


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


def _verdict(asked: Asked, gap: Measured, p: float | None, corrected: float | None) -> Verdict:
    claim = asked.claim
    outcome: Outcome = "not resolved"
    if corrected is not None and corrected < RESOLVED:
        outcome = "holds" if gap.mean > claim.by else "does not hold"
    return Verdict(
        place=asked.place,
        better=claim.better,
        than=claim.than,
        on=claim.on,
        by=claim.by,
        difference=gap,
        p=p,
        corrected=corrected,
        outcome=outcome,
        sentence=_sentence(asked, gap, corrected, outcome),
    )


def _sentence(asked: Asked, gap: Measured, corrected: float | None, outcome: Outcome) -> str:
    claim = asked.claim
    places = decimals(gap, claim.by)
    said = f"{_opening(asked)} {claim.better} ends {_apart(gap, places, claim.than)}"
    said += f", where {_margin(claim.by, places)} is claimed" if claim.by else ""
    evidence = [f"95 % interval {between}"] if (between := _between(gap, places, claim.by)) else []
    evidence.append(_pairs(gap, asked.pooled))
    if is_flat(gap, claim.by):
        evidence.append("all with the same difference, so there is no test")
    if corrected is not None:
        evidence.append(f"p {_p(corrected)} corrected")
    said += f" ({', '.join(evidence)}): {outcome}"
    costs = [_cost(metric, cost) for metric, cost in asked.costs]
    return said + (f"; not tested: {', '.join(costs)}." if costs else ".")


def _cost(metric: str, cost: Measured) -> str:
    """Where an arm ends on another set; no test corrects for it."""
    is_start = metric.partition("/")[0] == IN_DISTRIBUTION
    where = f"in distribution ({metric})" if is_start else f"on {metric}"
    places = decimals(cost)
    between = _between(cost, places)
    return f"{where} it ends {_apart(cost, places)}" + (f" ({between})" if between else "")


def _unjudged(asked: Asked) -> str:
    claim = asked.claim
    return (
        f"{_opening(asked)} {claim.better} cannot be set against {claim.than}: there is no pair of "
        "runs that both measured it."
    )


def _opening(asked: Asked) -> str:
    where = told(asked.place)
    return f"With {where}, on {asked.claim.on}" if where else f"On {asked.claim.on}"


def _apart(gap: Measured, places: int, than: str = "") -> str:
    """How far above or below, as far as the decimals tell."""
    if round(abs(gap.mean), places) == 0:
        return f"level with {than}" if than else "level"
    side = "above" if gap.mean > 0 else "below"
    return f"{decimal(abs(gap.mean), places)} {side} {than}".rstrip()


def _between(gap: Measured, places: int, by: float = 0.0) -> str:
    """The interval, each end with its side; empty where there is none, or nothing varies."""
    if gap.low is None or gap.high is None or is_flat(gap, by):
        return ""
    low, high = (decimal(abs(end), places) for end in (gap.low, gap.high))
    if round(gap.low, places) >= 0:
        return f"{low} to {high} above"
    if round(gap.high, places) <= 0:
        return f"{high} to {low} below"
    return f"{low} below to {high} above"


def _margin(by: float, places: int) -> str:
    """The margin of a claim with all of its decimals, nine at most, and its side."""
    places = next((n for n in range(places, 9) if round(by, n) == by), max(places, 9))
    side = "more than" if by > 0 else "a loss of less than"
    return f"{side} {decimal(abs(by), places)}"


def _pairs(found: Measured, pooled: Sequence[str]) -> str:
    """What a difference stands on: "10 pairs", "4 of 5 seeds x 3 levels of theta_0"."""
    planned = found.runs + found.missing
    counted = f"{found.runs} of {planned}" if found.missing else str(planned)
    said = f"{counted} {'seed' if pooled else 'pair'}{'' if planned == 1 else 's'}"
    partial = f" ({found.partial} in part)" if found.partial else ""
    return " x ".join([said, *pooled]) + partial


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {decimal(p)}"
