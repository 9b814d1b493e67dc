import json
import re
import shutil
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import vl_convert
import yaml

from eva.errors import RunDirError
from eva.records import Child, Response, Rollout
from eva.report import charts
from eva.report.marks import shown
from eva.report.page import page, picture
from tests.report.elements import SCRIPTS, Elements, assert_harmless
from tests.report.fake_runs import HOSTILE, write, write_json, write_run

BASE = 1_000_000
"""Upper bound of what every page carries: the library that draws the charts."""


def test_a_page_of_several_runs_is_whole_and_fetches_nothing(three_runs: list[Path]) -> None:
    text = page(three_runs)
    elements = assert_harmless(text)
    assert elements.count("h1") == 1
    words = " ".join(elements.texts)
    assert "One seed, not evidence." in words
    assert "Unfinished" not in words
    assert len(text) < BASE + 600_000


def test_a_policy_forbids_every_fetch_and_every_other_script(three_runs: list[Path]) -> None:
    metas = [a for tag, a in Elements(page(three_runs)).found if tag == "meta"]
    policy = next(a["content"] for a in metas if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy and "http" not in policy


def test_one_run_alone_is_shown(three_runs: list[Path]) -> None:
    words = " ".join(assert_harmless(page(three_runs[:1])).texts)
    assert "One run, round by round." in words and "Lineage" not in words


def test_numbers_of_the_table_are_those_of_the_evaluation_files(three_runs: list[Path]) -> None:
    text = page(three_runs)
    cells = re.findall(r'data-metric="([^"]+)" data-run="([^"]+)">([^<]+)<', text)
    assert len(cells) == 4 * 10  # the start and three runs; two sets with five columns
    for metric, run, printed in cells:
        name, t = ("static", 0) if run == "start" else (run, 4)
        path = next(found for found in three_runs if found.name == name)
        value = json.loads((path / f"evals/{t:03d}.json").read_text())[metric]
        assert printed == f"{value:.3f}"


def test_hostile_texts_are_shown_and_not_executed(hostile_runs: list[Path]) -> None:
    text = page(hostile_runs)
    elements = assert_harmless(text)
    words = "".join(elements.texts)
    for hostile in HOSTILE:
        visible = Elements(f"<p>{shown(hostile)}</p>").texts
        assert "".join(visible) in words
    for part in ("<script>alert(1)</script>", "{{7*7}}", "<!-- comment", "onerror=alert(1)"):
        assert part in words
    assert not set("\u2028\u2029\u202e\u200b\x00\x07\x1b") & set(text)
    text.encode()


def test_hostile_reasons_changes_and_writers_are_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "eva", rounds=2, prompts=12)
    room = run / "rounds/001"
    parent = json.loads((room / "parents.jsonl").read_text().splitlines()[0])["prompt"]["id"]
    hostile = [
        Child(parent=parent, method=text, change=text, by=text, flaw=text, raw=text)
        for text in HOSTILE
    ]
    shutil.rmtree(room / "children")
    write(room / "children/000000.jsonl", hostile)
    write_json(run / "run.json", {text: text for text in HOSTILE})
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["name"] = HOSTILE[0]
    recipe["creator"]["info"] = {"kind": "python", "call": HOSTILE[1]}
    recipe[HOSTILE[9]] = HOSTILE[2]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert_harmless(page([run]))


def test_charts_cannot_end_their_script(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "static", rounds=1, prompts=3)
    metrics = json.loads((run / "evals/001.json").read_text())
    metrics["</script><script>alert(1)//\u2028/sampled/reward"] = 0.5
    write_json(run / "evals/001.json", metrics)
    (run / "recipe.yaml").write_text(
        (run / "recipe.yaml").read_text().replace("static", "'<!-- <script>'")
    )
    text = page([run])
    assert Elements(text).count("script") == SCRIPTS


def test_a_response_of_a_megabyte_does_not_blow_the_page_up(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "eva", rounds=2, prompts=6)
    solved = run / "rounds/001/solved/000000.jsonl"
    rollouts = [Rollout.model_validate_json(line) for line in solved.read_bytes().splitlines()]
    long = (Response(text="x" * 1_000_000),) * 8
    write(solved, [rollout.model_copy(update={"responses": long}) for rollout in rollouts])
    assert len(page([run])) < BASE + 300_000


def test_an_unfinished_run_is_shown_as_far_as_it_is(unfinished_run: Path) -> None:
    words = " ".join(assert_harmless(page([unfinished_run])).texts)
    assert "2 of 4 rounds are finished; round 2 has got as far as “solved”" in words
    assert "Parents and children" in words


@pytest.mark.parametrize("missing", ["evals", "rounds", "run.json", "state.json"])
def test_a_run_without_a_part_is_shown(tmp_path: Path, missing: str) -> None:
    run = write_run(tmp_path / "run", "eva", rounds=2, prompts=8)
    part = run / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert_harmless(page([run]))
    assert picture([run]).startswith("<svg")


@pytest.mark.parametrize(
    "stage", ["scored.jsonl", "parents.jsonl", "children", "born.jsonl", "solved", "lessons.jsonl"]
)
def test_a_round_without_a_stage_is_shown(tmp_path: Path, stage: str) -> None:
    run = write_run(tmp_path / "run", "eva", rounds=2, prompts=8)
    part = run / "rounds/001" / stage
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert_harmless(page([run]))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError):
        page([tmp_path])
    with pytest.raises(RunDirError):
        picture([tmp_path])


def test_every_chart_is_a_specification_that_vega_lite_accepts(three_runs: list[Path]) -> None:
    text = page(three_runs)
    found = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL
    )
    assert found is not None
    specs = json.loads(found.group(1))
    places = {a["data-chart"] for _, a in Elements(text).found if "data-chart" in a}
    assert places == set(specs)
    for spec in specs.values():
        vega = vl_convert.vegalite_to_vega({**spec, "width": 300}, vl_version=charts.version())
        assert vega["marks"]


def test_the_picture_is_one_whole_svg_that_names_runs_and_sets(three_runs: list[Path]) -> None:
    text = picture(three_runs)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = " ".join(root.itertext())
    for name in ("static", "new", "eva", "hard", "x0"):
        assert name in words
    assert "href" not in text and 'fill="white"' not in text


def test_a_page_of_the_playground_is_small_and_made_quickly(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / arm, arm, rounds=8, prompts=256) for arm in ("new", "eva")]
    begin = time.perf_counter()
    text = page(runs)
    assert len(text.encode()) < 3_000_000
    assert time.perf_counter() - begin < 20  # about 3 s on an idle machine
