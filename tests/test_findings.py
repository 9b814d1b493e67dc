"""What a study found: read back as it was written, and the figures that it gives rise to."""

import pytest

from eva.errors import RunDirError
from eva.findings import (
    Findings,
    Line,
    Made,
    Measured,
    Row,
    pictures_of,
    places,
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


def test_how_settings_were_chosen_is_told():
    assert findings(tuned_by="r").choice == "the greatest mean of r"
    one = findings(tuned_by="r", tuned_within=1.0).choice
    assert one == "the first within one standard error of the greatest mean of r"
    assert "within 0.5 standard errors of" in findings(tuned_by="r", tuned_within=0.5).choice
