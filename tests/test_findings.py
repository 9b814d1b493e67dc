"""What a study found: read back as it was written, and the figures that it gives rise to."""

import doctest

import pytest

import eva.findings
from eva.errors import RunDirError
from eva.findings import (
    Findings,
    Line,
    Made,
    Measured,
    Row,
    counted,
    decimal,
    decimals,
    listed,
    mean_told,
    pictures_of,
    places,
    pooled_levels,
    read_findings,
    told,
)

ONE = Measured(mean=0.5, error=None, low=None, high=None, runs=1)
MADE = Made(
    command="eva study s.yaml", date="2026-11-22", commit=None, versions={}, minutes=1.0,
    cpu_minutes=2.0, jobs=2,
)  # fmt: skip
PLACES = [{"reward": reward, "size": size} for reward in ("graded", "binary") for size in "12"]


def findings(**keys):
    fields = {
        "name": "main", "question": "?", "arms": ("new", "eva"), "factors": {}, "pooled": (),
        "axes": (), "metrics": ("hard/sampled/reward", "x0/sampled/reward"), "rows": (),
        "spent": (), "unequal": (), "verdicts": (), "lines": (), "tuned": (), "cells": (),
    }  # fmt: skip
    return Findings(**fields | keys)


def row(place=None, **keys):
    return Row(place=place or {}, arm="eva", values={"hard/sampled/reward": ONE}, **keys)


def line(metric, place=None, rounds=2):
    return Line(
        place=place or {}, arm="eva", metric=metric, points=dict.fromkeys(range(rounds), ONE)
    )


def test_findings_are_read_as_they_were_written(tmp_path):
    found = findings(rows=(row({"reward": "graded"}),), lines=(line("round/words"),))
    (tmp_path / "findings.json").write_text(found.model_dump_json())
    assert read_findings(tmp_path) == (found, None)
    (tmp_path / "made.json").write_text(MADE.model_dump_json())
    assert read_findings(tmp_path) == (found, MADE)


def test_a_folder_without_findings_and_damaged_ones_are_told_apart(tmp_path):
    with pytest.raises(RunDirError, match=r"holds no findings\.json; name a folder"):
        read_findings(tmp_path)
    (tmp_path / "findings.json").write_text("{}")
    with pytest.raises(RunDirError, match="is damaged"):
        read_findings(tmp_path)
    (tmp_path / "findings.json").write_text(findings().model_dump_json())
    (tmp_path / "made.json").write_text("{")
    with pytest.raises(RunDirError, match=r"made\.json beside it is damaged"):
        read_findings(tmp_path)


def test_places_are_those_of_the_rows_and_may_leave_out_a_factor():
    found = findings(rows=tuple(row(place) for place in PLACES for _ in range(2)))
    assert places(found) == PLACES
    assert places(found, without="size") == [{"reward": "graded"}, {"reward": "binary"}]
    assert places(findings()) == []


def test_a_place_is_told_in_words():
    assert told({"reward": "binary", "size": "64"}) == "reward binary, size 64"
    assert told({}) == ""


def test_curves_of_one_place_are_one_figure():
    found = findings(rows=(row(),), lines=(line("round/words"), line("hard/sampled/reward")))
    (one,) = pictures_of(found)
    assert (one.file, one.kind) == ("main-curves.svg", "curves")
    assert (one.metrics, one.places) == (("round/words", "hard/sampled/reward"), ({},))


def test_curves_of_several_places_are_a_figure_for_each_metric():
    rows = tuple(row(place) for place in PLACES)
    found = findings(rows=rows, lines=(line("round/words", PLACES[0]), line("a/b", PLACES[1])))
    assert [(one.file, one.metrics) for one in pictures_of(found)] == [
        ("main-curves-round-words.svg", ("round/words",)),
        ("main-curves-a-b.svg", ("a/b",)),
    ]
    assert pictures_of(found)[0].places == tuple(PLACES)


def test_a_curve_of_one_point_is_no_figure():
    assert pictures_of(findings(rows=(row(),), lines=(line("a/b", rounds=1),))) == []


def test_an_axis_is_a_figure_over_the_places_without_it():
    found = findings(rows=tuple(row(place) for place in PLACES), axes=("size",))
    (one,) = pictures_of(found)
    assert (one.file, one.factor, one.metrics) == ("main-by-size.svg", "size", found.metrics)
    assert one.places == ({"reward": "graded"}, {"reward": "binary"})


def test_differences_are_a_figure_where_some_were_measured():
    (one,) = pictures_of(findings(rows=(row(), row(minus="new"))))
    assert (one.file, one.kind, one.places) == ("main-differences.svg", "differences", ({},))
    nothing = Row(place={}, arm="eva", minus="new", values={})
    assert pictures_of(findings(rows=(row(), nothing))) == []


def test_files_have_names_that_every_system_can_store():
    found = findings(name="a b", rows=(row(), row(minus="new")))
    assert pictures_of(found)[0].file == "a-b-differences.svg"


def test_no_two_figures_share_a_file():
    metrics = ("a/b", "a-b", "a-b-2", "A/b")
    rows = tuple(row(place) for place in PLACES)
    found = findings(rows=rows, lines=tuple(line(metric, PLACES[0]) for metric in metrics))
    # "a-b-2" finds its name taken, and of names that differ by case one would hide the other
    assert [one.file for one in pictures_of(found)] == [
        "main-curves-a-b.svg", "main-curves-a-b-2.svg", "main-curves-a-b-2-2.svg",
        "main-curves-A-b-3.svg",
    ]  # fmt: skip


def test_findings_keep_the_order_of_the_study():
    factors = {"theta_0": ("b", "a"), "reward": ("graded", "binary")}
    found = findings(factors=factors, rows=(row({"theta_0": "b", "reward": "graded"}),))
    again = Findings.model_validate_json(found.model_dump_json())
    assert list(again.factors) == ["theta_0", "reward"]
    assert told(again.rows[0].place) == "theta_0 b, reward graded"


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.0344, 3, "0.034"), (1.5, 3, "1.500"), (-0.25, 3, "\u22120.250"), (-0.0001, 3, "0.000"),
        (0.9996, 3, "1.000"), (0.00034, 5, "0.00034"), (-1234567.8, 3, "\u22121,234,568"),
    ],
)  # fmt: skip
def test_numbers_are_told_with_decimals_and_a_true_minus(value, places, text):
    assert decimal(value, places) == text


@pytest.mark.parametrize(
    ("mean", "error", "by", "n"),
    [
        (0.5, 0.1, 0.0, 3),
        (0.00034, 0.0001, 0.0, 5),  # two digits of .00034
        (0.00034, 0.02, 0.0, 3),  # of which the error leaves nothing
        (0.0203, 0.0001, 0.02, 5),
        (0.00034, None, 0.0, 5),
        (0.0, 0.0, 0.0, 3),
    ],
)
def test_a_mean_has_the_decimals_that_tell_it_from_the_margin(mean, error, by, n):
    assert decimals(ONE.model_copy(update={"mean": mean, "error": error}), by) == n


def test_a_mean_is_told_with_its_error():
    assert mean_told(ONE) == "0.500"
    assert mean_told(ONE.model_copy(update={"error": 0.0421})) == "0.500 ± 0.042"


def test_what_a_mean_stands_on_is_told():
    five = ONE.model_copy(update={"runs": 5})
    some = ONE.model_copy(update={"runs": 4, "missing": 1, "partial": 2})
    assert [counted(five), counted(some)] == ["5", "4 of 5"]
    assert [counted(five, 3), counted(some, 3)] == ["5 seeds x 3", "4 of 5 seeds x 3 (2 in part)"]
    assert counted(ONE, 3) == "1 x 3"
    factors = {"theta_0": ("a", "b", "c"), "data": ("x", "y"), "size": ("8", "9")}
    assert pooled_levels(findings(factors=factors, pooled=("theta_0", "data"))) == 6
    assert pooled_levels(findings(factors=factors)) == 1


def test_words_are_listed():
    assert [listed(words) for words in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]


def test_the_example_of_the_docstring_holds():
    failed, attempted = doctest.testmod(eva.findings)
    assert (failed, attempted) == (0, 1)


def test_how_settings_were_chosen_is_told():
    assert findings(tuned_by="r").choice == "the greatest mean of r"
    one = findings(tuned_by="r", tuned_within=1.0).choice
    assert one == "the first within one standard error of the greatest mean of r"
    assert "within 0.5 standard errors of" in findings(tuned_by="r", tuned_within=0.5).choice
