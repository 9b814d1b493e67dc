import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import vl_convert

from eva.cli.report import write_report
from eva.errors import RunDirError
from eva.findings import Cell, Findings
from eva.report import charts
from eva.report.begun import PAGE
from eva.report.marks import shown
from eva.report.studied import page
from tests.report.elements import SCRIPTS, Elements, assert_harmless
from tests.report.fake_runs import HOSTILE, write_run
from tests.report.fake_study import (
    ARMS,
    METRICS,
    PLACES,
    findings,
    measured,
    write_cell,
    write_findings,
    write_plan,
    write_study,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "fake")


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return page(study)


def words(text: str) -> str:
    """All texts of a page, or of a part of one, with single spaces between them."""
    return " ".join(" ".join(Elements(text).texts).split())


def test_question_claims_budget_and_tables_stand_in_this_order(html):
    said = words(html[html.index("<main>") :])
    parts = [
        *("holds", "Where the arms ended", "Not at equal budget: eva", "as many tokens", "0.580"),
        *("How far apart", "Over the rounds", "How the arms were tuned", "What a run spent"),
        *("Every run of the study", "Command, versions and time"),
    ]
    assert words(html).index("Is eva better?") < words(html).index(parts[0])
    found = [said.index(part) for part in parts]
    assert found == sorted(found)


def test_each_number_of_the_tables_is_that_of_the_findings(html):
    printed = re.findall(r'data-arm="([^"]+)" data-metric="([^"]+)">\s*([^\s<]+)', html)
    rows = [row for row in findings().rows if row.minus is None]
    expected = [
        (row.arm, metric, f"{row.values[metric].mean:.3f}") for row in rows for metric in METRICS
    ]
    assert printed == expected


def test_a_mean_has_its_error_its_interval_and_its_runs(html):
    said = words(html)
    assert "0.580 ± 0.008 0.565 to 0.596" in said
    assert "4 of 5" in said  # of the arm with a failed run


def test_a_metric_that_was_never_measured_is_a_dash(tmp_path):
    rows = tuple(
        row.model_copy(update={"values": {METRICS[0]: measured(0.5, 1)}}) for row in findings().rows
    )
    said = words(page(write_findings(tmp_path, findings(rows=rows))))
    assert "θ₀ 0.500 \u2013 1" in said


def test_an_outcome_is_told_by_words_and_not_by_colour_alone(html):
    claims = html[html.index('id="claims"') : html.index('id="result"')]
    told = re.findall(r'<li class="(\w+)"><span class="outcome">([^<]+)</span>', claims)
    assert told == [("good", "holds"), ("open", "not resolved"), ("none", "not judged")]


def test_equal_budgets_are_said_to_be_equal(tmp_path):
    said = words(page(write_findings(tmp_path, findings(unequal=()))))
    assert "Equal budget: in each place all arms spent the same" in said


def test_an_arm_leads_to_its_runs(html):
    ids = {attributes.get("id") for _, attributes in Elements(html).found}
    links = [a["href"] for tag, a in Elements(html).found if a.get("class") == "to-runs"]
    assert set(links) == {f"#runs-{k}" for k in range(len(ARMS))}
    assert {link.removeprefix("#") for link in links} <= ids


def test_every_run_is_listed_with_its_seed_its_place_and_why_it_failed(html):
    runs = html[html.index('id="runs"') :]
    said = words(runs)
    for cell in findings().cells:
        assert cell.path in said
    assert "failed: its process was killed by SIGKILL; <b>its log</b> has what it printed" in said
    assert "1 of 78 runs failed" in words(html)


def test_runs_that_were_kept_whole_have_links_to_their_pages(study, html):
    links = [a["href"] for tag, a in Elements(html).found if tag == "a"]
    pages = [link for link in links if link.endswith(PAGE)]
    assert pages == [f"cells/{arm}--graded--64/lr%3D0.0005/seed4/{PAGE}" for arm in ARMS]
    target = write_report([study], study)
    assert target == study / PAGE
    for link in pages:
        assert "One run, round by round." in (study / unquote(link)).read_text("utf-8")


def test_pages_of_runs_are_drawn_only_if_something_changed(tmp_path):
    study = write_study(tmp_path)
    write_report([study], study)
    runs = sorted(study.glob(f"cells/*/*/*/{PAGE}"))
    assert len(runs) == len(ARMS)
    before = [run.stat().st_mtime_ns for run in runs]
    os.utime(runs[1].parent / "rounds/001/metrics.json")
    write_report([study], study)
    assert [a == b.stat().st_mtime_ns for a, b in zip(before, runs, strict=True)] == [
        True, False, True
    ]  # fmt: skip


def test_links_lead_from_where_the_page_lies(study, tmp_path):
    target = write_report([study], tmp_path / "elsewhere.html")
    links = [a["href"] for tag, a in Elements(target.read_text("utf-8")).found if tag == "a"]
    pages = [link for link in links if link.endswith(PAGE)]
    assert len(pages) == len(ARMS)
    assert all((target.parent / unquote(link)).is_file() for link in pages)


def test_a_run_outside_of_the_study_is_neither_linked_nor_written(tmp_path):
    write_run(tmp_path / "outside", "static", rounds=1, prompts=3)
    paths = ("../outside", str(tmp_path / "outside"), "javascript:alert(1)//../../../outside")
    cells = tuple(
        Cell(place={}, arm="eva", setting={}, seed=n, use="table", path=path)
        for n, path in enumerate(paths)
    )
    study = write_findings(tmp_path / "study", findings(cells=cells))
    target = write_report([study], study)
    links = [a["href"] for tag, a in Elements(target.read_text("utf-8")).found if tag == "a"]
    assert not [link for link in links if link and not link.startswith("#")]
    assert not (tmp_path / "outside" / PAGE).exists()


def test_a_pruned_run_has_no_link(tmp_path):
    study = write_findings(tmp_path, findings())
    write_cell(study / findings().cells[-1].path, "eva", pruned=True)
    assert f"/{PAGE}" not in page(study)


def test_every_figure_is_a_chart_that_vega_lite_accepts(html):
    found = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', html, re.DOTALL
    )
    assert found is not None
    specs = json.loads(found.group(1))
    places = [a["data-chart"] for _, a in Elements(html).found if "data-chart" in a]
    assert places == list(specs)
    # differences by metric; ends by size in two places; two curves in four places
    assert len(places) == 2 + 2 * 2 + 2 * 4
    for spec in specs.values():
        assert vl_convert.vegalite_to_vega({**spec, "width": 300}, vl_version=charts.version())


def test_a_study_of_one_seed_and_one_arm_says_that_it_is_no_evidence(tmp_path):
    cells = (Cell(place={}, arm="eva", setting={}, seed=1, use="table", path="cells/eva/x/seed1"),)
    found = Findings(
        name="one", question="", arms=("eva",), factors={}, pooled=(), axes=(), metrics=METRICS,
        rows=(), spent=(), unequal=(), verdicts=(), lines=(), tuned=(), cells=cells,
    )  # fmt: skip
    said = words(page(write_findings(tmp_path, found, made=None)))
    assert "One seed, not evidence." in said
    assert "1 arm, 1 seed: 1 run." in said
    for absent in ("How it was made", "tuned", "claimed", "Equal budget"):
        assert absent not in said


def hostile_findings(text: str) -> Findings:
    """Every text of the findings is hostile; arms and factors are told apart by a number."""
    found = findings(name=text, question=text)
    arms = {arm: f"{text}{n}" for n, arm in enumerate((*ARMS, "theta_0"))}
    place = {f"{text}f": text}
    move = {"place": place}
    return found.model_copy(
        update={
            "arms": tuple(arms[arm] for arm in ARMS),
            "factors": {f"{text}f": (text,)},
            "pooled": (text,),
            "axes": (),
            "metrics": (text,),
            "rows": tuple(
                row.model_copy(
                    update=move
                    | {"arm": arms[row.arm], "minus": row.minus and arms[row.minus]}
                    | {"values": {text: measured(0.5)}, "leads": (text,)}
                )
                for row in found.rows[:6]
            ),
            "spent": tuple(
                one.model_copy(update=move | {"arm": arms[one.arm], "counts": {text: 3.0}})
                for one in found.spent[:3]
            ),
            "unequal": (text,),
            "verdicts": (found.verdicts[0].model_copy(update={"sentence": text}),),
            "unjudged": (text,),
            "lines": tuple(
                line.model_copy(update=move | {"arm": arms[line.arm], "metric": text})
                for line in found.lines[:3]
            ),
            "tuned": tuple(
                one.model_copy(update={"arm": arms[one.arm], "setting": {text: text}})
                for one in found.tuned
            ),
            "tuned_by": text,
            "cells": tuple(
                cell.model_copy(
                    update=move
                    | {"arm": arms[cell.arm], "setting": {text: text}, "failed": text}
                    | {"path": f"cells/{text}/{cell.seed}"}
                )
                for cell in found.cells[:20]
            ),
        }
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_do_no_harm(tmp_path, text):
    study = write_findings(tmp_path, hostile_findings(text))
    html = page(study)
    elements = assert_harmless(html)
    assert "".join(Elements(f"<p>{shown(text)}</p>").texts) in "".join(elements.texts)
    assert elements.count("script") == SCRIPTS
    assert not set("\u2028\u2029\u202e\u200b\x00\x07\x1b") & set(html)
    html.encode()


def test_a_very_long_text_is_clipped(tmp_path):
    cell = findings().cells[0].model_copy(update={"failed": "x" * 1_000_000})
    html = page(write_findings(tmp_path, findings(cells=(cell,))))
    assert len(html) < 1_200_000
    assert "996,000 more characters are not on this page" in html


@pytest.mark.parametrize(
    ("file", "text"),
    [("findings.json", "{"), ("made.json", "[]"), ("study.yaml", "["), ("study.yaml", "3")],
)
def test_a_damaged_file_is_named(tmp_path, file, text):
    write_plan(write_findings(tmp_path, findings()))
    (tmp_path / file).write_text(text)
    with pytest.raises(RunDirError, match=file.replace(".", r"\.")):
        page(tmp_path)


def test_a_study_without_findings_tells_how_far_its_runs_are(tmp_path):
    write_plan(tmp_path)
    said = words(page(tmp_path))
    assert "Is eva better?" in said and "No run has begun yet." in said
    write_cell(tmp_path / "cells/eva--graded--64/lr=0.0005/seed1", "eva", pruned=True)
    write_run(tmp_path / "cells/new--graded--64/lr=0.0005/seed1", "new", rounds=3, prompts=4)
    (tmp_path / "cells/new--graded--64/lr=0.0005/seed1/rounds/002/metrics.json").unlink()
    html = page(tmp_path)
    said = words(html)
    assert "1 of 78 runs are finished, 0 are running, 1 has stopped or failed (" in said
    assert "cells/new--graded--64/lr=0.0005/seed1 2 of 3 rounds; stopped or failed" in said
    assert '<progress max="78" value="1"' in html
    assert "Where the arms ended" not in said


def test_a_study_that_grows_shows_what_was_found_before(tmp_path):
    write_plan(write_findings(tmp_path, findings()))
    assert "How far it is" not in words(page(tmp_path))
    write_run(tmp_path / "cells/more--graded--64/as-is/seed4", "static", rounds=1, prompts=4)
    said = words(page(tmp_path))
    assert "How far it is" in said and "What stands below is what was found before." in said


def test_places_are_told_apart(html):
    said = words(html[html.index('id="result"') : html.index('id="differences"')])
    for place in PLACES:
        assert f"reward {place['reward']}, size {place['size']}" in said
