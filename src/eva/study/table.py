"""The tables of a study: where arms end, how far apart, how they got there, how they were tuned.

All of it is a mean over seeds. Runs of one seed that differ by the level of a pooled factor share
their draws, so they are averaged first: only seeds count as evidence. A run that failed, or did not
measure something, is left out; a seed of which nothing is left is counted as missing.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from eva import seeds
from eva.findings import Line, Measured, Place, Row, Tuned
from eva.formulas.statistics import Estimate, bootstrap_interval, estimate, holm, p_value
from eva.study import plan
from eva.study.plan import Played, Setting, Study, Tuning
from eva.study.results import Result

Levels: TypeAlias = tuple[tuple[str, str], ...]
"""Factors and their levels, in the order of the study."""
Key: TypeAlias = tuple[Levels, int]
"""What the two runs of a pair share: the level of every factor, and the seed."""
Results: TypeAlias = Mapping[tuple[str, Key], Result]
"""What each run of the table measured, by arm and key; one that failed is absent."""
Taken: TypeAlias = dict[Key, float | None]
"""A number of each planned run of an arm in a place; None where it is missing."""
Shared: TypeAlias = dict[Levels, dict[int, tuple[float | None, ...]]]
"""The metrics of a checkpoint that all arms share, by levels and seed."""

ROUND = "round/"
"""How a metric of a round begins; others are held-out metrics of a checkpoint."""
NO_GOAL = frozenset({"missing", "overoptimised"})
"""Held-out metrics that no arm leads by having more of."""
RESOLVED = 0.05
"""A corrected p below this is no noise."""
FLAT = 1e-9
"""Errors below this part of a mean are those of rounding. Our choice."""


def tabled(study: Study) -> list[Place]:
    """Every combination of the levels of the factors that are not pooled."""
    return _combined(study, [name for name in study.factors if name not in study.pool])


def tabled_results(study: Study, played: Iterable[Played]) -> Results:
    """What the runs of the table measured."""
    return {
        (one.arm, (tuple((name, one.place[name]) for name in study.factors), one.seed)): one.result
        for one in played
        if one.use == "table" and one.result
    }


def rows(study: Study, results: Results) -> list[Row]:
    """For each place theta_0, theta_1 where it is shared, each arm, and the differences."""
    found: list[Row] = []
    for place in tabled(study):
        found += [row for t in (0, 1) if (row := _shared(study, results, place, t))]
        ends = {
            (arm, metric): taken(study, results, arm=arm, place=place, number=ending(metric))
            for arm, metric in itertools.product(study.arms, study.metrics)
        }
        led = {metric: _leader(study, ends, metric) for metric in study.metrics}
        for arm in study.arms:
            leads = tuple(metric for metric in study.metrics if led[metric] == arm)
            values = _known({m: averaged(ends[arm, m]) for m in study.metrics})
            found.append(Row(place=place, arm=arm, values=values, leads=leads))
        found += _differences(study, ends, place)
    return found


def lines(study: Study, results: Results) -> list[Line]:
    """The curves: each metric of each arm in each place, over rounds."""
    found = []
    for place, metric, arm in itertools.product(tabled(study), study.curves, study.arms):
        curves = {
            key: _series(results[arm, key], metric) if (arm, key) in results else {}
            for key in _keys(study, place)
        }
        every_t = sorted(set().union(*curves.values()))
        means = {t: averaged({key: curves[key].get(t) for key in curves}) for t in every_t}
        points = {t: mean for t, mean in means.items() if mean}
        if points:
            found.append(Line(place=place, arm=arm, metric=metric, points=points))
    return found


def tuned(study: Study, played: Sequence[Played]) -> list[Tuned]:
    """Every setting that was tried and measured, and which of them the table uses."""
    best = chosen(study, played)
    return [
        Tuned(
            place={name: level for name, level in place.items() if (name, level) in at[1]},
            arm=at[0],
            setting=setting,
            value=value,
            is_chosen=setting == best[at],
        )
        for at, place, tried in _grids(study, played)
        for setting, value in tried
    ]


def chosen(study: Study, played: Sequence[Played]) -> dict[Tuning, Setting]:
    """The setting of each arm, in each level of the factors that it is tuned over.

    The greatest mean of `tune.by` on the tuning seeds; of those that are within `tune.within` of
    its standard errors the first of the grid. Our choice: a setting that failed on a seed is no
    choice while another failed on fewer: what is left of it are the seeds on which it went well.

    Args:
        study: The study.
        played: Its runs; those of the table count for nothing.

    Returns:
        By arm and sorted (factor, level); an arm of which not one tuning run has a result is
        absent. Without a grid the setting that changes nothing.
    """
    if study.tune is None:
        places = plan.places(study, study.factors)
        return {plan.tuned_at(study, arm, place): {} for place in places for arm in study.arms}
    found = {}
    for at, _, tried in _grids(study, played):
        most = max(value.runs for _, value in tried)
        whole = [(value, setting) for setting, value in tried if value.runs == most]
        best = max((value for value, _ in whole), key=lambda value: value.mean)
        least = best.mean - study.tune.within * (best.error or 0.0)
        found[at] = next(setting for value, setting in whole if value.mean >= least)
    return found


def taken(
    study: Study,
    results: Results,
    *,
    arm: str,
    place: Place,
    number: Callable[[Result], float | None],
) -> Taken:
    """A number of each planned run of an arm in a place.

    Args:
        study: The study.
        results: What its runs measured.
        arm: The arm.
        place: The place.
        number: What is taken of a result, e.g. `ending(metric)`.
    """
    keys = _keys(study, place)
    return {k: number(results[arm, k]) if (arm, k) in results else None for k in keys}


def ending(metric: str) -> Callable[[Result], float | None]:
    """What takes a metric of the last checkpoint, or of the last round, of a result."""

    def number(result: Result) -> float | None:
        last = max(_by_t(result, metric), default=0)
        return _series(result, metric).get(last)

    return number


def difference(a: Taken, b: Taken) -> Measured | None:
    """How far a is above b over pairs of the same levels and seed; None without a pair.

    Pairs of one seed are averaged first, over the pooled levels that both sides have.
    """
    pairs = [(key, x, b.get(key)) for key, x in a.items()]
    return averaged({key: None if x is None or y is None else x - y for key, x, y in pairs})


def averaged(found: Taken) -> Measured | None:
    """The mean over seeds, each the mean over the levels that it has; None if all are missing."""
    by_seed: dict[int, list[float | None]] = {}
    for (_, seed), x in found.items():
        by_seed.setdefault(seed, []).append(x)
    means = measured(_mean(x_N) for x_N in by_seed.values())
    partial = sum(0 < x_N.count(None) < len(x_N) for x_N in by_seed.values())
    return means and means.model_copy(update={"partial": partial})


def measured(x_N: Iterable[float | None]) -> Measured | None:
    """A mean with its error and interval; None if all are missing.

    All means of as many numbers draw the same resamples, so that a difference which is told twice
    has one interval.

    Args:
        x_N: A number of each seed; None where it is missing.
    """
    every = list(x_N)
    known_N = np.array([x for x in every if x is not None])
    known, missing = len(known_N), every.count(None)
    if not known:
        return None
    mean, error = estimate(known_N)
    if known == 1:
        return Measured(mean=mean, error=None, low=None, high=None, runs=1, missing=missing)
    low, high = bootstrap_interval(known_N, seeds.rng(0, "bootstrap", known))
    return Measured(mean=mean, error=error, low=low, high=high, runs=known, missing=missing)


def p_of(found: Measured, value: float) -> float | None:
    """Two-sided p of the t-test that a mean is `value`; None for one seed, or without any spread.

    Where all seeds say the same, nothing tells what chance does: no t can be had.
    """
    if found.error is None or is_flat(found, value):
        return None
    return p_value(Estimate(found.mean, found.error), value, df=found.runs - 1)


def is_flat(found: Measured, value: float = 0.0) -> bool:
    """Whether several seeds say the same, but for rounding, beside the size of mean and value."""
    size = max(abs(found.mean), abs(value))
    return found.error is not None and found.error <= FLAT * size


def _combined(study: Study, names: Sequence[str]) -> list[Place]:
    levels = [[(name, level) for level in study.factors[name]] for name in names]
    return [dict(place) for place in itertools.product(*levels)]


def _keys(study: Study, place: Place) -> list[Key]:
    """The planned runs of any arm in a place: every level of what is pooled, on every seed."""
    every = _combined(study, list(study.factors))
    here = [levels for levels in every if place.items() <= levels.items()]
    return [(tuple(levels.items()), seed) for levels in here for seed in study.seeds]


def _known(numbers: Mapping[str, Measured | None]) -> dict[str, Measured]:
    """By metric, without those that were never measured."""
    return {metric: value for metric, value in numbers.items() if value}


def _mean(x_N: Iterable[float | None]) -> float | None:
    """The mean of what is known, exact where all are equal; None if nothing is."""
    known_N = np.array([x for x in x_N if x is not None])
    return estimate(known_N).mean if len(known_N) else None


def _by_t(result: Result, metric: str) -> dict[int, dict[str, float]]:
    return result.rounds if metric.startswith(ROUND) else result.evals


def _series(result: Result, metric: str) -> dict[int, float]:
    """A metric of a run by t, finite."""
    name = metric.removeprefix(ROUND)
    found = {t: numbers.get(name, math.nan) for t, numbers in _by_t(result, metric).items()}
    return {t: value for t, value in found.items() if math.isfinite(value)}


def _shared(study: Study, results: Results, place: Place, t: int) -> Row | None:
    """theta_t where every arm has the same one and goes on.

    All begin with theta_0, also if one arm alone has a result; what they share after a round is
    known where all of them have one on the same levels and seed.
    """
    metrics = [metric for metric in study.metrics if not metric.startswith(ROUND)]
    runs: Shared = {}
    is_met = t == 0
    for levels, seed in _keys(study, place):
        key = (levels, seed)
        here = [results[arm, key] for arm in study.arms if (arm, key) in results]
        if any(t not in result.evals or t == max(result.evals) for result in here):
            return None
        seen = {tuple(_series(result, m).get(t) for m in metrics) for result in here}
        if len(seen) > 1:
            return None
        runs.setdefault(levels, {})[seed] = seen.pop() if seen else (None,) * len(metrics)
        is_met |= 1 < len(here) == len(study.arms)
    values = _known({metric: _once(runs, k) for k, metric in enumerate(metrics)})
    return Row(place=place, arm=f"theta_{t}", values=values) if values and is_met else None


def _once(runs: Shared, k: int) -> Measured | None:
    """The mean of a metric over seeds; if all seeds share what is measured, it is one run."""
    found = {(levels, seed): x[k] for levels, of in runs.items() for seed, x in of.items()}
    same = {levels: {x[k] for x in of.values()} - {None} for levels, of in runs.items()}
    if all(len(values) < 2 for values in same.values()):
        return averaged({(levels, 0): next(iter(same[levels]), None) for levels in same})
    return averaged(found)


def _leader(study: Study, ends: Mapping[tuple[str, str], Taken], metric: str) -> str | None:
    """The arm that ends above each other one beyond noise, if there is such an arm."""
    known = {arm: averaged(ends[arm, metric]) for arm in study.arms}
    means = {arm: value.mean for arm, value in known.items() if value}
    has_goal = not metric.startswith(ROUND) and metric.split("/")[-1] not in NO_GOAL
    if not has_goal or len(study.arms) < 2 or not means:
        return None
    best = max(means, key=lambda arm: means[arm])
    gaps = [difference(ends[best, metric], ends[arm, metric]) for arm in study.arms if arm != best]
    p_N = [p for gap in gaps if gap and gap.mean > 0 and (p := p_of(gap, 0.0)) is not None]
    is_clear = len(p_N) == len(gaps) and bool((holm(np.array(p_N)) < RESOLVED).all())
    return best if is_clear else None


def _differences(study: Study, ends: Mapping[tuple[str, str], Taken], place: Place) -> list[Row]:
    """The arm that the study names, minus each other arm."""
    one = study.against
    if one is None:
        return []
    found = []
    for other in study.arms:
        if other != one:
            values = _known({m: difference(ends[one, m], ends[other, m]) for m in study.metrics})
            found.append(Row(place=place, arm=one, minus=other, values=values))
    return found


def _grids(
    study: Study, played: Sequence[Played]
) -> list[tuple[Tuning, Place, list[tuple[Setting, Measured]]]]:
    """For each arm and place that is tuned, the settings that have a result, with their means."""
    if study.tune is None:
        return []
    number, found = ending(study.tune.by), []
    for place, arm in itertools.product(plan.places(study, study.tune.over), study.arms):
        here = [one for one in played if (one.use, one.arm, one.place) == ("tune", arm, place)]
        tried = []
        for setting in plan.grid(study, place):
            results = [one.result for one in here if one.setting == setting]
            value = measured(number(result) if result else None for result in results)
            if value:
                tried.append((setting, value))
        if tried:
            found.append((plan.tuned_at(study, arm, place), place, tried))
    return found
