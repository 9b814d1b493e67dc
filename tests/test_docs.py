"""What the pages and the examples say works."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eva import recipe as recipes
from eva.study import load, planned

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list:
    """Every fenced block of a language, with the page it stands on."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        )
    ]


@pytest.mark.parametrize("text", blocks("python"))
def test_python_on_a_page_runs(text, tmp_path, monkeypatch):
    if "transformers" in text:
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(text)
    runpy.run_path(str(tmp_path / "block.py"))


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_on_a_page_is_part_of_a_sound_recipe_or_a_sound_study(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    if "\narms:" in text:
        study = load(tmp_path / "r.yaml")
        assert planned(study, tmp_path / "home", tmp_path).tabled
        return
    part = yaml.safe_load(text)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"base": "playground-eva", **part}))
    recipes.load(str(tmp_path / "r.yaml"))


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_study_that_ships_is_sound(path, tmp_path):
    study = load(path)
    assert study.name == path.stem
    assert planned(study, tmp_path / "home", path.parent).tabled


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_is_short_and_runs(path):
    assert path.read_text("utf-8").count("\n") <= 150
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_example_learns():
    path = ROOT / "examples/own_game.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    # It starts at 0 with prompts up to 0.5; only evolved prompts can lead it beyond.
    assert float(done.stdout.split()[-1]) > 0.6


def test_every_metric_that_is_logged_stands_on_its_page(tmp_path):
    from tests.world import played

    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    documented = set(re.findall(r"`([\w/]+)`", page))
    for _, metrics in played(tmp_path / "run", "evaluate.solved_at=0.5"):
        assert {key.rpartition("/")[2] for key in metrics} <= documented


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
