"""Charts as Vega-Lite specifications; colours are CSS variables, so they follow the page's theme.

On the page a chart has no legend and no title: the page writes both.
"""

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import altair as alt
import vl_convert

from eva.report.marks import MISSING
from eva.report.measures import Series

Spec: TypeAlias = dict[str, Any]
"""A Vega-Lite specification; its keys are Vega-Lite's."""

COLOURS = 8
"""Runs with colours of their own; then they begin again."""
FATES = ("var(--good)", "var(--bad-0)", "var(--bad-1)", "var(--bad-2)", "var(--bad-3)",
         "var(--bad-4)", "var(--bad-5)")  # fmt: skip
"""Colours of admitted children and of the reasons of refusal."""
PICTURE = ("#3b7dd8", "#e08a2c", "#2f9e6e", "#c2558f", "#8268d0", "#2497a3", "#a06f42", "#7f8691")
"""Colours of the runs in the picture; seen well on white and on black."""
INK = "#7d8590"
"""Text of the picture; contrast above 3.7 on white and on GitHub's dark ground."""
HEIGHT = 190
"""Height of a chart on the page, in pixels."""
_NO_BORDERS: Mapping[str, Sequence[float]] = MappingProxyType({})


def colour(index: int) -> str:
    """The colour of a run on the page."""
    return f"var(--run-{index % COLOURS})"


def version() -> str:
    """The Vega-Lite that Altair writes for, as vl-convert names it, e.g. "6.1"."""
    return str(alt.SCHEMA_VERSION).removeprefix("v").rsplit(".", 1)[0]


def curves(series: Series, *, x: str, digits: int = 3, whole: bool = False) -> Spec:
    """A line with points for each run, and a rule that tells all values at one x.

    Args:
        series: The points of each run.
        x: What the horizontal axis counts.
        digits: Digits of the numbers that the rule tells.
        whole: Whether the vertical axis shows all of [0, 1], for shares.
    """
    domain = list(series)
    height = alt.Scale(domain=[0, 1]) if whole else alt.Scale(zero=False)
    lines = _line_marks(series, domain, x, height=height)
    points = lines.mark_point(filled=True, size=34, opacity=1)
    lines = lines.mark_line(strokeWidth=2.2, strokeJoin="round", strokeCap="round")
    return _finished(alt.layer(lines, points, _rule(series, x, digits)))


def steps(
    raw: Series,
    smooth: Series,
    borders: Mapping[str, Sequence[float]],
    *,
    x: str,
    digits: int = 4,
) -> Spec:
    """A thin line of every step, a strong moving mean, both broken where a round begins.

    Args:
        raw: Every step of each run.
        smooth: The moving means.
        borders: The steps at which the rounds of each run begin; drawn if all runs agree.
        x: What the horizontal axis counts.
        digits: Digits of the numbers that the rule tells.
    """
    domain = list(raw)
    thin = _line_marks(raw, domain, x, borders=borders)
    thin = thin.mark_line(strokeWidth=0.8, opacity=0.28)
    strong = _line_marks(smooth, domain, x, borders=borders)
    strong = strong.mark_line(strokeWidth=1.8, strokeJoin="round")
    longest = max(borders.values(), key=len)
    agreed = all(list(longest[: len(found)]) == list(found) for found in borders.values())
    rounds = (
        alt.Chart({"values": [{"x": border - 0.5} for border in longest]})
        .mark_rule(stroke="var(--line)", strokeDash=[2, 3])
        .encode(x="x:Q")
    )
    layers = [rounds] if agreed and longest else []
    return _finished(alt.layer(*layers, thin, strong, _rule(smooth, x, digits)))


def stacks(
    counts: Sequence[tuple[int, str, int]],
    parts: Sequence[str],
    colours: Sequence[str],
    *,
    shares: bool,
) -> Spec:
    """Stacked bars by round; with `shares`, each round fills the whole height."""
    totals: dict[int, int] = {}
    for number, _, count in counts:
        totals[number] = totals.get(number, 0) + count
    values = [
        {"round": number, "part": part, "count": count, "share": count / totals[number],
         "order": parts.index(part)}
        for number, part, count in counts
    ]  # fmt: skip
    height = alt.Y(
        "share:Q" if shares else "count:Q",
        title=None,
        axis=alt.Axis(tickCount=4, format="%" if shares else "~s"),
        scale=alt.Scale(domain=[0, 1]) if shares else alt.Scale(zero=True),
    )
    tips = [("round:O", "round", ""), ("part:N", "what", ""), ("count:Q", "children", ""),
            ("share:Q", "share", ".0%")]  # fmt: skip
    bars = alt.Chart({"values": values}).mark_bar(
        cornerRadius=1, stroke="var(--card)", strokeWidth=0.6
    )
    return _finished(
        bars.encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0, grid=False)),
            y=height,
            color=alt.Color("part:N", scale=_scale(parts, colours), legend=None),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip(field, title=title, format=form) for field, title, form in tips],
        )
    )


def svg(panels: Mapping[str, Series], y: str) -> str:
    """The learning curves side by side as one SVG, readable on light and dark grounds.

    Args:
        panels: A series for each held-out set, by its name.
        y: What is measured.
    """
    labels = [label for series in panels.values() for label in series]
    shared = _shared_start(labels)
    longest = max((len(label) - len(shared) for label in labels), default=0)
    charts = [
        _panel(name, {label.removeprefix(shared): points for label, points in series.items()}, y)
        for name, series in panels.items()
    ]
    # Text beyond a panel is measured in one font and drawn in another: leave it room.
    room = 26 + 8 * longest
    whole = alt.hconcat(
        *charts, spacing=room, background="transparent", padding={"right": room}
    ).configure(
        font="Helvetica Neue, Helvetica, Arial, sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=INK,
            titleColor=INK,
            domainColor=INK,
            domainOpacity=0.5,
            tickColor=INK,
            tickOpacity=0.5,
            gridColor=INK,
            gridOpacity=0.18,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            titlePadding=8,
        ),
    )
    return vl_convert.vegalite_to_svg(whole.to_dict(), vl_version=version())


def _panel(name: str, series: Series, y: str) -> alt.LayerChart | alt.FacetChart:
    """The curves of one held-out set with their names at the ends."""
    domain = list(series)
    scale = _scale(domain, [PICTURE[n % COLOURS] for n in range(len(domain))])
    lines = _line_marks(series, domain, "checkpoint", y=y, scale=scale)
    layers = [
        lines.mark_line(strokeWidth=2.4, strokeJoin="round", strokeCap="round"),
        lines.mark_point(filled=True, size=30, opacity=1),
        _labels(series, scale),
    ]
    title = alt.TitleParams(name, anchor="start", frame="group", fontSize=13, color=INK, offset=14)
    return alt.layer(*layers).properties(width=300, height=230, title=title)


def _shared_start(labels: Sequence[str]) -> str:
    """What all labels begin with, up to a hyphen: "playground-" of playground-eva and -new."""
    start = labels[0] if len(set(labels)) > 1 else ""
    while not all(label.startswith(start) for label in labels):
        start = start[:-1]
    return start[: start.rfind("-") + 1]


def _labels(series: Series, scale: alt.Scale) -> alt.Chart:
    """Names at the ends of the lines, moved apart where they would overlap."""
    ends = sorted(
        (points[-1][1], label, points[-1][0]) for label, points in series.items() if points
    )
    every = [value for points in series.values() for _, value in points]
    gap = 0.075 * ((max(every) - min(every)) or 1.0) if every else 0.0
    places: list[float] = []
    for value, _, _ in ends:
        places.append(max(value, places[-1] + gap) if places else value)
    shift = sum(p - e[0] for p, e in zip(places, ends, strict=True)) / len(ends) if ends else 0.0
    values = [
        {"run": label, "x": x, "y": place - shift}
        for (_, label, x), place in zip(ends, places, strict=True)
    ]
    ends_chart = alt.Chart({"values": values})
    names: alt.Chart = ends_chart.mark_text(align="left", dx=8, fontSize=12, fontWeight=600).encode(
        x="x:Q", y="y:Q", text="run:N", color=alt.Color("run:N", scale=scale, legend=None)
    )
    return names


def _scale(domain: Sequence[str], colours: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(domain), range=list(colours))


def _line_marks(
    series: Series,
    domain: Sequence[str],
    x: str,
    *,
    y: str | None = None,
    scale: alt.Scale | None = None,
    height: alt.Scale | None = None,
    borders: Mapping[str, Sequence[float]] = _NO_BORDERS,
) -> alt.Chart:
    """What points and lines share; a line is broken at the borders of its run."""
    values = [
        {"run": label, "x": place, "y": value, "part": bisect(borders.get(label, ()), place)}
        for label, points in series.items()
        for place, value in points
    ]
    colours = scale or _scale(domain, [colour(n) for n in range(len(domain))])
    return alt.Chart({"values": values}).encode(
        x=alt.X(
            "x:Q",
            title=x,
            axis=alt.Axis(values=ticks(_places(series)), format="d", grid=False),
            scale=alt.Scale(nice=False, zero=False, padding=6),
        ),
        y=alt.Y("y:Q", title=y, axis=alt.Axis(tickCount=4), scale=height or alt.Scale(zero=False)),
        color=alt.Color("run:N", scale=colours, legend=None),
        detail="part:N",
    )


def _places(series: Series) -> list[float]:
    return [place for points in series.values() for place, _ in points]


def ticks(places: Sequence[float], most: int = 9) -> list[int]:
    """At most `most` round whole numbers over the places, for an axis that counts."""
    low, high = (math.ceil(min(places)), math.floor(max(places))) if places else (0, 0)
    steps = (step * 10**power for power in range(12) for step in (1, 2, 5))
    step = next(s for s in steps if (high - low) // s < most)
    return list(range(-(-low // step) * step, high + 1, step))


def _rule(series: Series, x: str, digits: int) -> alt.LayerChart | alt.FacetChart:
    """A rule at every x that appears under the pointer and tells all values there."""
    places = sorted({place for points in series.values() for place, _ in points})
    known = {label: dict(points) for label, points in series.items()}
    rows = []
    for place in places:
        row: dict[str, float | str] = {"x": place}
        for number, label in enumerate(series):
            value = known[label].get(place)
            row[f"v{number}"] = MISSING if value is None else f"{value:.{digits}f}"
        rows.append(row)
    near = alt.selection_point(
        name="near", fields=["x"], on="pointerover", clear="pointerout", empty=False
    )
    tips = [alt.Tooltip(f"v{number}:N", title=label) for number, label in enumerate(series)]
    base = alt.Chart({"values": rows}).encode(x="x:Q")
    rule = base.mark_rule(stroke="var(--faint)", strokeWidth=1).encode(
        opacity=alt.condition(near, alt.value(1), alt.value(0))
    )
    # Unseen bands that fill the width catch the pointer. Vega-Lite's own way, `nearest`, tells
    # "undefined" for fields that are texts.
    wide = alt.ExprRef(f"width / {max(1, len(rows) - 1)}")
    bands = base.mark_rule(opacity=0, strokeWidth=wide).encode(
        tooltip=[alt.Tooltip("x:Q", title=x), *tips]
    )
    return alt.layer(rule, bands.add_params(near))


def _finished(chart: alt.Chart | alt.LayerChart | alt.FacetChart) -> Spec:
    """The specification, as wide as its place; the look is the page's."""
    spec: Spec = chart.properties(width="container", height=HEIGHT).to_dict(validate=False)
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}
