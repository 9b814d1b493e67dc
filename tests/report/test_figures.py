"""Figures of a study: what is drawn, in the page's look and as files."""

import xml.etree.ElementTree as ET

import pytest

from eva.findings import Findings, Line, Measured, Row, pictures_of
from eva.report import figures
from eva.report.marks import MISSING

HARD, X0 = "hard/sampled/reward", "x0/sampled/reward"
SVG = "{http://www.w3.org/2000/svg}"


def measured(mean: float, runs: int = 3) -> Measured:
    if runs == 1:
        return Measured(mean=mean, error=None, low=None, high=None, runs=1)
    return Measured(mean=mean, error=0.02, low=mean - 0.03, high=mean + 0.04, runs=runs)


def findings(**keys: object) -> Findings:
    places = [{"reward": reward, "size": size} for reward in ("a", "b") for size in ("8", "128")]
    rows = []
    for place in places:
        size = float(place["size"])
        rows += [
            Row(place=place, arm="theta_0", values={HARD: measured(0.1)}),
            Row(place=place, arm="new", values={HARD: measured(0.2 + size / 1000)}),
            Row(place=place, arm="eva", values={HARD: measured(0.3), X0: measured(0.5, 1)}),
            Row(place=place, arm="eva", minus="new", values={HARD: measured(0.1)}),
        ]
    lines = [
        Line(place=place, arm=arm, metric=metric, points={0: measured(0.1), 2: measured(0.2, 1)})
        for place in places
        for metric in (HARD, "round/words")
        for arm in ("new", "eva")
    ]
    fields: dict[str, object] = {
        "name": "main", "question": "?", "arms": ("new", "eva"),
        "factors": {"reward": ("a", "b"), "size": ("8", "128")}, "pooled": (), "axes": ("size",),
        "metrics": (HARD, X0), "rows": tuple(rows), "spent": (), "unequal": (), "verdicts": (),
        "lines": tuple(lines), "tuned": (), "cells": (),
    }  # fmt: skip
    return Findings.model_validate(fields | keys)


def values(spec: dict, layer: int) -> list[dict]:
    return spec["datasets"][spec["layer"][layer]["data"]["name"]]


def test_curves_have_bands_of_one_standard_error() -> None:
    spec = figures.curves(findings(), HARD, {"reward": "a", "size": "8"})
    assert values(spec, 0) == [
        {"arm": arm, "x": x, "y": y, "low": pytest.approx(low), "high": pytest.approx(high)}
        for arm in ("new", "eva")
        for x, y, low, high in ((0.0, 0.1, 0.08, 0.12), (2.0, 0.2, 0.2, 0.2))
    ]
    assert spec["layer"][0]["mark"]["type"] == "area"
    assert (spec["width"], spec["layer"][0]["encoding"]["x"]["title"]) == (
        "container",
        "checkpoint",
    )
    words = figures.curves(findings(), "round/words", {"reward": "a", "size": "8"})
    assert words["layer"][0]["encoding"]["x"]["title"] == "round"


def test_the_pointer_is_told_every_arm_at_once() -> None:
    found = findings()
    short = found.lines[0].model_copy(update={"points": {0: measured(0.1)}})
    spec = figures.curves(
        found.model_copy(update={"lines": (short, *found.lines[1:])}), HARD, short.place
    )
    assert values(spec, -1) == [
        {"x": 0.0, "v0": "0.100 ± 0.020", "v1": "0.100 ± 0.020"},
        {"x": 2.0, "v0": MISSING, "v1": "0.200"},
    ]
    tips = spec["layer"][-1]["layer"][-1]["encoding"]["tooltip"]
    assert [tip["title"] for tip in tips] == ["checkpoint", "new", "eva"]


def test_a_place_without_curves_is_an_empty_figure() -> None:
    spec = figures.curves(findings(lines=()), HARD, {})
    assert len(spec["layer"]) == 3  # band, line, points; no pointer


def test_an_axis_has_the_amounts_of_its_levels_and_is_logarithmic_where_they_spread() -> None:
    spec = figures.over_axis(findings(), "size", HARD, {"reward": "b"})
    assert [(one["arm"], one["x"], one["y"]) for one in values(spec, 0)] == [
        ("new", 8.0, pytest.approx(0.208)), ("new", 128.0, pytest.approx(0.328)),
        ("eva", 8.0, 0.3), ("eva", 128.0, 0.3),
    ]  # fmt: skip
    x = spec["layer"][0]["encoding"]["x"]
    assert (x["title"], x["scale"]["type"], x["axis"]["values"]) == ("size", "log", [8.0, 128.0])
    near = findings(factors={"size": ("0", "128")})
    rows = tuple(row for row in near.rows if row.place["size"] == "128")
    spec = figures.over_axis(near.model_copy(update={"rows": rows}), "size", HARD, {"reward": "b"})
    assert spec["layer"][0]["encoding"]["x"]["scale"]["type"] == "linear"


def test_a_forest_has_a_line_for_each_difference() -> None:
    spec = figures.forest(findings(), HARD)
    names = [f"eva \u2212 new, reward {r}, size {s}" for r in "ab" for s in ("8", "128")]
    assert [one["name"] for one in values(spec, 1)] == names
    one = values(spec, 1)[0]
    assert (one["arm"], one["y"], one["pairs"]) == ("new", 0.1, "3")
    assert one["told"] == "0.100 (0.070 to 0.140)"
    assert spec["height"] == 4 * figures.STEP
    assert spec["layer"][1]["encoding"]["tooltip"][-1]["title"] == "pairs"
    pooled = figures.forest(findings(factors={"theta_0": ("a", "b")}, pooled=("theta_0",)), HARD)
    assert values(pooled, 1)[0]["pairs"] == "3 seeds x 2"
    assert pooled["layer"][1]["encoding"]["tooltip"][-1]["title"] == "seeds"
    # of what was not measured there is none, and one pair has no interval
    assert values(figures.forest(findings(), X0), 1) == []
    pair = Row(place={}, arm="eva", minus="new", values={HARD: measured(0.5, 1)})
    (point,) = values(figures.forest(findings(rows=(pair,)), HARD), 1)
    assert (point["name"], point["low"], point["high"]) == ("eva \u2212 new", 0.5, 0.5)
    assert point["told"] == "0.500"


def test_small_differences_are_told_with_the_digits_that_they_need() -> None:
    tiny = Measured(mean=0.0003, error=0.0001, low=0.0002, high=0.0004, runs=3)
    rows = (Row(place={}, arm="eva", minus="new", values={HARD: tiny}),)
    (point,) = values(figures.forest(findings(rows=rows), HARD), 1)
    assert point["told"] == "0.00030 (0.00020 to 0.00040)"


def test_colours_follow_the_page_and_stay_with_their_arm() -> None:
    spec = figures.forest(findings(), HARD)
    scale = spec["layer"][1]["encoding"]["color"]["scale"]
    assert scale == {"domain": ["new", "eva"], "range": ["var(--run-0)", "var(--run-1)"]}


def texts(svg: bytes) -> list[str]:
    return ["".join(one.itertext()) for one in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return figures.pictures(findings())


def test_every_figure_of_the_page_is_drawn(drawn: dict[str, bytes]) -> None:
    assert list(drawn) == [one.file for one in pictures_of(findings())]
    assert list(drawn) == [
        "main-differences.svg", "main-by-size.svg", "main-curves-hard-sampled-reward.svg",
        "main-curves-round-words.svg",
    ]  # fmt: skip
    assert all(b"var(" not in svg for svg in drawn.values())
    axis = texts(drawn["main-by-size.svg"])
    assert {"new", "eva", "size"} <= set(axis)
    curves = texts(drawn["main-curves-round-words.svg"])
    assert sum(text.startswith("round/words") for text in curves) == 4  # one for each place
    assert "reward b, size 128" in " ".join(curves)


def test_the_names_of_differences_stand_once_in_a_row(drawn: dict[str, bytes]) -> None:
    names = texts(drawn["main-differences.svg"])
    assert names.count("eva \u2212 new, reward a, size 8") == 1


def test_a_study_of_one_arm_needs_no_legend_and_is_drawn_the_same_again() -> None:
    found = findings(arms=("eva",), rows=(Row(place={}, arm="eva", values={}),), axes=())
    lines = (Line(place={}, arm="eva", metric=HARD, points={0: measured(0.1), 1: measured(0.2)}),)
    found = found.model_copy(update={"lines": lines})
    drawn = figures.pictures(found)
    assert list(drawn) == ["main-curves.svg"]
    assert "eva" not in texts(drawn["main-curves.svg"])
    assert figures.pictures(found) == drawn
