"""Figures of a study: curves with bands, ends along an axis, differences with their intervals.

Each is drawn in two looks: as a specification for the page, whose colours follow its theme, and as
an SVG file that is readable on light and dark grounds.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import altair as alt
import vl_convert

from eva.findings import (
    Findings,
    Measured,
    Picture,
    Place,
    Row,
    counted,
    decimal,
    decimals,
    mean_told,
    pictures_of,
    pooled_levels,
    told,
)
from eva.report import charts
from eva.report.marks import MISSING

Panel: TypeAlias = alt.LayerChart | alt.FacetChart
"""Layers without a size; Altair's types have it that layers may come out faceted."""
Points: TypeAlias = dict[str, dict[float, Measured]]
"""Means by arm and place on the horizontal axis."""

LOG_FROM = 8.0
"""An axis whose greatest amount is this many times its smallest is logarithmic."""
STEP = 24
"""Height of one difference, in pixels."""
WIDTHS = {1: 460, 2: 330, 3: 235}
"""Width of a panel in a file by how many stand side by side, in pixels."""


@dataclass(frozen=True)
class Look:
    """Where a figure is seen."""

    colour: Callable[[int], str]
    """Of an arm by its number."""
    rule: str
    """Colour of lines that help to read."""
    is_page: bool
    """Whether it answers to the pointer, and leaves legend and title to the page."""


PAGE = Look(charts.colour, "var(--faint)", is_page=True)
FILE = Look(lambda n: charts.PICTURE[n % charts.COLOURS], charts.INK, is_page=False)


def curves(findings: Findings, metric: str, place: Place) -> charts.Spec:
    """A metric over rounds: a line for each arm, its band one standard error to each side.

    Args:
        findings: What the study found.
        metric: One of its curves.
        place: One of `eva.findings.places`.
    """
    return _spec(_curves(findings, metric, place, PAGE), charts.HEIGHT)


def over_axis(findings: Findings, factor: str, metric: str, place: Place) -> charts.Spec:
    """Where arms end over the amounts of a factor: a line for each, with standard errors.

    Args:
        findings: What the study found.
        factor: One of its axes.
        metric: A tabled metric.
        place: The levels of the other factors, one of `eva.findings.places` without this one.
    """
    return _spec(_over_axis(findings, factor, metric, place, PAGE), charts.HEIGHT)


def forest(findings: Findings, metric: str) -> charts.Spec:
    """The differences between arms on a metric, one below the other, with 95 % intervals.

    Args:
        findings: What the study found.
        metric: A tabled metric.
    """
    return _spec(_forest(findings, metric, PAGE), STEP * max(1, len(_gaps(findings))))


def pictures(findings: Findings) -> dict[str, bytes]:
    """The figures of the results page as SVG, by the names of their files."""
    return {one.file: _drawn(findings, one).encode() for one in pictures_of(findings)}


def _drawn(findings: Findings, one: Picture) -> str:
    """One file: a panel for each metric in each place."""
    asked = list(itertools.product(one.metrics, one.places))
    columns = _columns(len(asked))
    width, height = WIDTHS[columns], 0.62 * WIDTHS[columns]
    if one.kind == "differences":
        height = STEP * max(1, len(_gaps(findings)))
    panels = []
    for k, (metric, place) in enumerate(asked):
        panel = _panel(findings, one, metric, place, is_named=k % columns == 0)
        title = _title("\n".join(filter(None, [metric, told(place)])))
        panels.append(alt.layer(panel, title).properties(width=width, height=height))
    return _svg(findings, one, alt.concat(*panels, columns=columns, spacing=28))


def _panel(findings: Findings, one: Picture, metric: str, place: Place, *, is_named: bool) -> Panel:
    if one.kind == "differences":
        return _forest(findings, metric, FILE, is_named=is_named)
    if one.factor:
        return _over_axis(findings, one.factor, metric, place, FILE)
    return _curves(findings, metric, place, FILE)


def _title(words: str) -> alt.Chart:
    """A title at one height in all panels; Vega's own stands on the labels of the axis."""
    chart = alt.Chart({"values": [{"title": words}]}).mark_text(
        align="left",
        baseline="bottom",
        lineBreak="\n",
        fontSize=12,
        fontWeight=600,
        fill=charts.INK,
    )
    above = 12 + 14 * words.count("\n")
    titled: alt.Chart = chart.encode(text="title:N", x=alt.value(0), y=alt.value(-above))
    return titled


def _columns(panels: int) -> int:
    """Three, or fewer where rows are fuller for it."""
    return 2 if panels in (2, 4) else min(panels, 3)


def _curves(findings: Findings, metric: str, place: Place, look: Look) -> Panel:
    found = [line for line in findings.lines if (line.metric, line.place) == (metric, place)]
    points: Points = {
        line.arm: {float(t): point for t, point in sorted(line.points.items())} for line in found
    }
    title = "round" if metric.startswith("round/") else "checkpoint"
    places = [t for by_t in points.values() for t in by_t]
    x = alt.X(
        "x:Q",
        title=title,
        axis=alt.Axis(values=charts.ticks(places), format="d", grid=False),
        scale=alt.Scale(nice=False, zero=False, padding=6),
    )
    base = _base(findings, points, look).encode(x=x)
    band = base.mark_area(opacity=0.16).encode(y=_height_of("low"), y2="high:Q")
    return alt.layer(band, *_lines(base), *_pointer(points, title, look))


def _over_axis(findings: Findings, factor: str, metric: str, place: Place, look: Look) -> Panel:
    points: Points = {arm: {} for arm in findings.arms}
    for row in findings.rows:
        rest = {name: level for name, level in row.place.items() if name != factor}
        if row.minus is None and row.arm in points and rest == place and metric in row.values:
            points[row.arm][float(row.place[factor])] = row.values[metric]
    amounts = sorted({float(level) for level in findings.factors[factor]})
    is_log = amounts[0] > 0 and amounts[-1] >= LOG_FROM * amounts[0]
    x = alt.X(
        "x:Q",
        title=factor,
        axis=alt.Axis(values=amounts, labelExpr="'' + datum.value", grid=False, labelOverlap=True),
        scale=alt.Scale(type="log" if is_log else "linear", nice=False, zero=False, padding=10),
    )
    base = _base(findings, points, look).encode(x=x)
    errors = base.mark_rule(strokeWidth=1.4).encode(y=_height_of("low"), y2="high:Q")
    return alt.layer(errors, *_lines(base), *_pointer(points, factor, look))


def _forest(findings: Findings, metric: str, look: Look, *, is_named: bool = True) -> Panel:
    gaps = _gaps(findings)
    names = [_difference(row) for row in gaps]
    pooled = pooled_levels(findings)
    values = [_gap(row, found, pooled) for row in gaps if (found := row.values.get(metric))]
    sides = alt.Axis(
        labels=is_named, labelLimit=320, labelPadding=8, grid=False, domain=False, ticks=False
    )
    tips = (
        ("name:N", "difference"),
        ("told:N", metric),
        ("pairs:N", "seeds" if pooled > 1 else "pairs"),
    )
    base = alt.Chart({"values": values}).encode(
        y=alt.Y("name:N", title=None, sort=names, axis=sides, scale=alt.Scale(domain=names)),
        color=alt.Color("arm:N", scale=_scale(findings, look), legend=None),
        tooltip=[alt.Tooltip(field, title=title) for field, title in tips],
    )
    across = alt.X(
        "low:Q",
        title=None,
        axis=alt.Axis(tickCount=4, format="~g", labelOverlap=True),
        scale=alt.Scale(nice=False, padding=12),
    )
    zero = alt.Chart({"values": [{"x": 0}]}).mark_rule(stroke=look.rule, strokeDash=[3, 3])
    interval = base.mark_rule(strokeWidth=2.2).encode(x=across, x2="high:Q")
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(x="y:Q")
    return alt.layer(zero.encode(x="x:Q"), interval, dots)


def _gap(row: Row, found: Measured, pooled: int) -> dict[str, str | float | None]:
    """A difference as the figure needs it; of one pair, without an interval."""
    n, between = decimals(found), ""
    low = high = found.mean
    if found.low is not None and found.high is not None:
        low, high = found.low, found.high
        between = f" ({decimal(low, n)} to {decimal(high, n)})"
    return {
        "name": _difference(row),
        "arm": row.minus,
        "y": found.mean,
        "low": low,
        "high": high,
        "told": decimal(found.mean, n) + between,
        "pairs": counted(found, pooled),
    }


def _gaps(findings: Findings) -> list[Row]:
    return [row for row in findings.rows if row.minus is not None and row.values]


def _difference(row: Row) -> str:
    where = told(row.place)
    return f"{row.arm} \u2212 {row.minus}" + (f", {where}" if where else "")


def _scale(findings: Findings, look: Look) -> alt.Scale:
    """A colour for each arm, the same in all figures."""
    colours = [look.colour(n) for n in range(len(findings.arms))]
    return alt.Scale(domain=list(findings.arms), range=colours)


def _base(findings: Findings, points: Points, look: Look) -> alt.Chart:
    """The means of each arm with one standard error to each side."""
    values = [
        {
            "arm": arm,
            "x": x,
            "y": found.mean,
            "low": found.mean - (found.error or 0.0),
            "high": found.mean + (found.error or 0.0),
        }
        for arm, known in points.items()
        for x, found in known.items()
    ]
    several = len(findings.arms) > 1 and not look.is_page
    legend = (
        alt.Legend(title=None, orient="top", symbolType="circle", symbolOpacity=1)
        if several
        else None
    )
    colour = alt.Color("arm:N", scale=_scale(findings, look), legend=legend)
    base: alt.Chart = alt.Chart({"values": values}).encode(color=colour)
    return base


def _lines(base: alt.Chart) -> list[alt.Chart]:
    line = base.mark_line(strokeWidth=2.2, strokeJoin="round", strokeCap="round")
    dots = base.mark_point(filled=True, size=24, opacity=1)
    return [line.encode(y=_height_of("y")), dots.encode(y=_height_of("y"))]


def _height_of(field: str) -> alt.Y:
    axis = alt.Axis(tickCount=4)
    return alt.Y(f"{field}:Q", title=None, axis=axis, scale=alt.Scale(zero=False))


def _pointer(points: Points, x: str, look: Look) -> list[Panel]:
    """On the page: a rule under the pointer that tells the mean of every arm there."""
    places_x = sorted({place for known in points.values() for place in known})
    if not look.is_page or not places_x:
        return []
    rows: list[Mapping[str, float | str]] = []
    for place in places_x:
        words = [_told(known.get(place)) for known in points.values()]
        rows.append({"x": place, **{f"v{k}": word for k, word in enumerate(words)}})
    near = alt.selection_point(
        name="near", fields=["x"], on="pointerover", clear="pointerout", empty=False
    )
    base = alt.Chart({"values": rows}).encode(x="x:Q")
    rule = base.mark_rule(stroke=look.rule, strokeWidth=1).encode(
        opacity=alt.condition(near, alt.value(1), alt.value(0))
    )
    tips = [alt.Tooltip(f"v{k}:N", title=arm) for k, arm in enumerate(points)]
    # Unseen bands that fill the width catch the pointer, as in `charts`.
    wide = alt.ExprRef(f"width / {max(1, len(rows) - 1)}")
    bands = base.mark_rule(opacity=0, strokeWidth=wide).encode(
        tooltip=[alt.Tooltip("x:Q", title=x), *tips]
    )
    return [alt.layer(rule, bands.add_params(near))]


def _told(found: Measured | None) -> str:
    return MISSING if found is None else mean_told(found)


def _spec(chart: Panel, height: int) -> charts.Spec:
    """The specification, as wide as its place; the look is the page's."""
    spec: charts.Spec = chart.properties(width="container", height=height).to_dict(validate=False)
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}


def _svg(findings: Findings, one: Picture, chart: alt.ConcatChart) -> str:
    shared: Literal["shared", "independent"] = "independent"
    if one.kind == "curves" and len(one.metrics) == 1:
        shared = "shared"
    # Names are measured in one font and drawn in another: leave them room.
    longest = max((len(_difference(row)) for row in _gaps(findings)), default=0)
    left = 8 + 1.5 * longest if one.kind == "differences" else 8
    whole = chart.resolve_scale(color="shared", y=shared).properties(
        background="transparent", padding={"left": left, "right": 14, "top": 8, "bottom": 8}
    )
    configured = whole.configure(
        font="Helvetica Neue, Helvetica, Arial, sans-serif",
        view=alt.ViewConfig(stroke=None),
        legend=alt.LegendConfig(
            labelColor=charts.INK, labelFontSize=12, symbolStrokeWidth=0, symbolSize=90,
            columnPadding=16, offset=12, labelLimit=260,
        ),
        axis=alt.AxisConfig(
            labelColor=charts.INK, titleColor=charts.INK, domainColor=charts.INK,
            domainOpacity=0.5, tickColor=charts.INK, tickOpacity=0.5, gridColor=charts.INK,
            gridOpacity=0.18, labelFontSize=11, titleFontSize=11, titleFontWeight="normal",
            titlePadding=6,
        ),
    )  # fmt: skip
    return vl_convert.vegalite_to_svg(
        configured.to_dict(validate=False), vl_version=charts.version()
    )
