"""`eva show RUN --yields`: every child is counted once, and texts of a run cannot draw."""

import json

import pytest

from eva.reading import read_run
from eva.records import Child
from eva.store import read_records, write_whole
from tests.test_cli import SETS, said


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("yields") / "run"
    said("run", "toy", str(path), *SETS)
    file = path / "rounds/002/children.jsonl"
    children = list(read_records(file, Child))
    told = {"flaw": "too short", "gate": "words", "method": "[bold]\x1b[2J"}
    children[0] = children[0].model_copy(update=told)
    write_whole(file, [f"{c.model_dump_json()}\n".encode() for c in children])
    return path


def test_the_table_counts_every_child_once(run):
    out = said("show", str(run), "--yields")
    written = sum(len(played.children) for played in read_run(run).rounds)
    total = next(line for line in out.splitlines() if line.startswith("│ all"))
    cells = [cell.strip() for cell in total.strip("│").split("│")]
    # all, nobody in particular, written, born, share, refused
    assert cells[2:4] == [str(written), str(written - 1)]
    assert cells[5] == "words 1"
    assert "[bold]U+001B[2J" in out
    assert "\x1b" not in out
    assert out.count("│ born ") == 2  # a row for each round that wrote


def test_machines_get_the_same(run):
    found = json.loads(said("show", str(run), "--yields", "--json"))
    rows = {row["method"]: row for row in found["yields"]}
    assert rows["[bold]\x1b[2J"]["refused"] == {"words": 1}
    assert rows["[bold]\x1b[2J"]["share"] == 0.0
    assert [entry["round"] for entry in found["diversity"]] == [1, 2]
    assert set(found["diversity"][0]["born"]) == {"distinct_2", "nearest", "compression", "words"}


def test_a_run_without_children_says_so(tmp_path):
    said("run", "toy", str(tmp_path / "run"), *SETS, "--set", "creator=null")
    assert "no children were written" in said("show", str(tmp_path / "run"), "--yields")
