"""The pages in a headless Chromium: what they look like, and that nothing in them runs."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva.recipe import load
from eva.report import watch
from eva.report.page import page
from eva.report.studied import page as study_page
from eva.start import run_recipe
from tests.report.browser import Browser, browser, needs_chromium
from tests.report.fake_runs import HOSTILE, write_run
from tests.report.fake_study import findings, write_findings, write_plan, write_study
from tests.report.test_studied import hostile_findings

pytestmark = needs_chromium

CONTRAST = """(() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour, under) => {
    paint.fillStyle = `rgb(${under.join(" ")})`; paint.fillRect(0, 0, 1, 1);
    paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ground = (part) => {
    const chain = [];
    for (let p = part; p; p = p.parentElement) chain.unshift(getComputedStyle(p).backgroundColor);
    return chain.reduce((under, colour) => rgba(colour, under), [255, 255, 255]);
  };
  const light = (colour) => colour.map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const part = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !part.checkVisibility()) continue;
    const look = getComputedStyle(part);
    const under = ground(part);
    const ink = part.namespaceURI.endsWith("svg") ? look.fill : look.color;
    const [a, b] = [light(rgba(ink, under)), light(under)].sort((x, y) => y - x);
    const large = parseFloat(look.fontSize) >= 24;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) 
      poor.push(`${ratio.toFixed(2)} ${part.outerHTML.slice(0, 90)}`);
  }
  return poor;
})()"""
"""Texts whose contrast to their ground is below that of WCAG 2.2, 1.4.3 (level AA)."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, three_runs: list[Path]) -> dict[str, str]:
    """The addresses of the page of a study, of one run and of three."""
    home = tmp_path_factory.mktemp("pages")
    texts = {
        "study": study_page(write_study(home / "of")),
        "run": page(three_runs[2:]),
        "runs": page(three_runs),
        "progress": study_page(write_plan(home / "begun")),
    }
    for name, text in texts.items():
        (home / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (home / f"{name}.html").as_uri() for name in texts}


@pytest.mark.parametrize("width", [360, 759, 760, 1600])
@pytest.mark.parametrize("name", ["study", "run", "runs", "progress"])
def test_a_page_is_as_wide_as_its_window(chromium, pages, name, width):
    chromium.open(pages[name], width)
    chromium.js("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert chromium.js("document.documentElement.scrollWidth") == width
    assert chromium.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["study", "run", "runs"])
def test_every_text_stands_out_from_its_ground(chromium, pages, name, dark):
    chromium.open(pages[name], dark=dark)
    chromium.js("document.querySelectorAll('.fold').forEach((part) => { part.open = true; })")
    chromium.until(
        "[...document.querySelectorAll('.fold[open] > .grid [data-chart]')]"
        ".every((place) => place.querySelector('svg'))"
    )
    ground = chromium.js("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(21, 23, 26)") == dark
    assert chromium.js(CONTRAST) == []


@pytest.mark.parametrize("name", ["study", "runs"])
def test_every_chart_that_is_seen_is_drawn_and_no_other(chromium, pages, name):
    chromium.open(pages[name])
    drawn = chromium.js("[...document.querySelectorAll('[data-chart] svg.marks')].length")
    seen = chromium.js(
        "[...document.querySelectorAll('[data-chart]')]"
        ".filter((place) => !place.closest('details:not([open])')).length"
    )
    assert drawn == seen > 0
    assert [a for a in chromium.requests() if not a.startswith("data:")] == [pages[name]]


def test_a_figure_of_differences_has_room_for_its_names_in_a_narrow_window(chromium, pages):
    place = "document.querySelector('#differences [data-chart]')"
    chromium.open(pages["study"], 360)
    texts = chromium.js(f"[...{place}.querySelectorAll('text, tspan')].map((t) => t.textContent)")
    assert not [text for text in texts if "…" in text]
    assert {"eva \u2212 static", "reward graded", "size 64"} <= set(texts)
    share = f"{place}.querySelector('.background').getBoundingClientRect().width / 360"
    assert chromium.js(share) > 0.3


@pytest.mark.parametrize("text", [*HOSTILE, "W" * 300])
def test_hostile_texts_are_seen_and_do_not_run(chromium, tmp_path, text):
    run = write_run(tmp_path / "run", "eva", 2, prompts=4, keep=1.0)
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("name: eva", f"name: {json.dumps(text)}"))
    study = write_findings(tmp_path / "study", hostile_findings(text))
    for html in (study_page(study), page([run])):
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        chromium.open((tmp_path / "page.html").as_uri(), 360)
        chromium.js("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert chromium.js("document.documentElement.scrollWidth") == 360
        chromium.js("document.querySelectorAll('main *').forEach((part) => part.click?.())")
        assert chromium.complaints() == []
        assert [a for a in chromium.requests() if not a.startswith(("data:", "file:"))] == []
        assert chromium.js("document.querySelectorAll('script').length") == 3
        heading = chromium.js("document.querySelector('h1').textContent").strip()
        assert heading.startswith(text.split("\u2028")[0].split("\u202e")[0].split("\x00")[0])


def test_an_arm_unfolds_its_runs_from_the_keyboard(chromium, pages):
    chromium.open(pages["study"])
    assert not chromium.js("document.getElementById('runs-2').open")
    chromium.js("document.querySelectorAll('.to-runs')[2].focus()")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    chromium.press("Tab", 9)  # what the keyboard reaches is marked
    assert chromium.js(outline) == "solid"
    chromium.js("document.querySelectorAll('.to-runs')[2].focus()")
    chromium.press("Enter", 13, "\r")
    chromium.until("document.getElementById('runs-2').open")
    top = "document.getElementById('runs-2').getBoundingClientRect().top"
    chromium.until(f"{top} >= 0 && {top} < innerHeight")
    chromium.js("document.getElementById('runs-2').open = false")
    chromium.js("document.querySelectorAll('.to-runs')[2].click()")  # the same place once more
    chromium.until("document.getElementById('runs-2').open")


def test_every_fold_and_table_is_reached_from_the_keyboard(chromium, pages):
    chromium.open(pages["study"])
    wanted = chromium.js("document.querySelectorAll('main summary, main a').length")
    chromium.js("document.querySelectorAll('.fold').forEach((part) => { part.open = true; })")
    reached = set()
    for _ in range(200):
        chromium.press("Tab", 9)
        reached.add(
            chromium.js(
                "(() => { const all = [...document.querySelectorAll('*')];"
                "return all.indexOf(document.activeElement); })()"
            )
        )
    tags = chromium.js(f"{sorted(reached)}.map((n) => document.querySelectorAll('*')[n].tagName)")
    assert tags.count("SUMMARY") >= 10 and tags.count("A") + tags.count("SUMMARY") >= wanted
    assert "DIV" in tags  # a table that scrolls


@pytest.mark.parametrize("name", ["study", "run"])
def test_paper_is_light_and_shows_what_is_folded(chromium, pages, tmp_path, name):
    chromium.open(pages[name], dark=True)
    was = chromium.js("document.querySelectorAll('.fold[open]').length")
    chromium.js(
        "addEventListener('beforeprint', () => { window.folded ="
        " document.querySelectorAll('.fold:not([open])').length; })"
    )
    chromium.pdf(tmp_path / "page.pdf")
    assert chromium.js("window.folded") == 0
    assert chromium.js("document.querySelectorAll('.fold[open]').length") == was
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.js("getComputedStyle(document.querySelector('nav')).display") == "none"
    chromium.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_paper_has_the_charts_and_tables_whole(chromium, pages, tmp_path):
    chromium.open(pages["study"])
    chromium.pdf(tmp_path / "page.pdf")
    subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf"], check=True)
    said = " ".join((tmp_path / "page.txt").read_text("utf-8").split())
    assert "eva \u2212 static, reward graded, size 64" in said  # of a chart
    assert "learner.lr 0.0002" in said and "seed8" in said  # of folded parts
    assert "checkpoint" in said and "0.565 to 0.596" in said


def test_a_watched_page_follows_its_run_and_leaves_the_reader_where_it_is(
    chromium, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch, "SOON", 0.0)
    monkeypatch.setattr(watch, "REST", 0.0)
    whole = write_run(tmp_path / "whole", "eva", rounds=4, prompts=16)
    run = tmp_path / "run"
    later = ["rounds/002", "rounds/003", "rounds/004"]
    shutil.copytree(whole, run)
    for name in later:
        shutil.rmtree(run / name)
    with watch.server([run], 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        chromium.open(f"http://127.0.0.1:{server.server_port}/", 1000, 600)
        chromium.until("document.querySelector('.live')?.textContent === 'live'")
        chromium.js("""
            window.kept = document.querySelector('#families h2');
            window.unchanged = document.querySelector('#curves svg.marks');
            window.changed = document.querySelector('#pool svg.marks');
            document.querySelectorAll('#families .fold')[0].open = true;
            document.querySelectorAll('#recipe .fold')[0].open = false;
            kept.scrollIntoView({ behavior: 'instant' });
            window.begun = kept.getBoundingClientRect().top;
            window.moved = 0;
            window.empty = 0;
            (function look() {
              const top = kept.getBoundingClientRect().top;
              moved = Math.max(moved, Math.abs(top - begun));
              for (const place of document.querySelectorAll('[data-drawn]'))
                if (place.style.visibility !== 'hidden' && !place.querySelector('svg')) empty += 1;
              requestAnimationFrame(look);
            })();
        """)
        for name in later:
            shutil.copytree(whole / name, run / name)
        chromium.until("!document.querySelector('.unfinished')")
        chromium.until("!changed.isConnected")
        assert chromium.js("kept.isConnected && unchanged.isConnected")
        assert chromium.js("document.querySelectorAll('#families .fold')[0].open")
        assert not chromium.js("document.querySelectorAll('#recipe .fold')[0].open")
        assert chromium.js("moved") < 1
        assert chromium.js("empty") == 0
        assert chromium.complaints() == []
        server.shutdown()
    chromium.until("document.querySelector('.live').classList.contains('lost')")
    assert chromium.js("kept.isConnected")


def test_a_watched_study_turns_from_its_progress_to_its_findings(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SOON", 0.0)
    monkeypatch.setattr(watch, "REST", 0.0)
    with watch.server([write_plan(tmp_path)], 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        chromium.open(f"http://127.0.0.1:{server.server_port}/")
        chromium.until("document.body.textContent.includes('No run has begun yet')")
        hostile = findings(question=HOSTILE[0])
        write_findings(tmp_path, hostile)
        chromium.until("document.querySelectorAll('#curves svg.marks').length === 8")
        assert chromium.js("document.querySelectorAll('#page script').length") == 0
        assert HOSTILE[0] in chromium.js("document.querySelector('.question').textContent")
        # Whatever got into the page, it cannot reach another server.
        chromium.js("fetch('http://127.0.0.1:9/').catch(() => 0)")
        chromium.until("true")
        said = " ".join(chromium.complaints())
        assert "Content Security Policy" in said and "connect-src" in said
        server.shutdown()


def test_the_page_of_a_real_run_is_drawn(chromium, tmp_path):
    for _ in run_recipe(load("toy"), tmp_path / "run", here=tmp_path):
        pass
    (tmp_path / "page.html").write_text(page([tmp_path / "run"]), encoding="utf-8")
    chromium.open((tmp_path / "page.html").as_uri(), 360)
    assert chromium.js("document.querySelectorAll('svg.marks').length") > 4
    assert chromium.complaints() == []
    last = json.loads(max((tmp_path / "run/evals").glob("*.json")).read_text())
    cells = chromium.js("[...document.querySelectorAll('td[data-metric]')]"
                        ".map((td) => [td.dataset.metric, td.firstChild.data])")  # fmt: skip
    assert [text for _, text in cells[-len(cells) // 2 :]] == [
        f"{last[metric]:.3f}".replace("-", "\u2212") for metric, _ in cells[-len(cells) // 2 :]
    ]
