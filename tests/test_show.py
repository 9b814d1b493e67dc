"""`eva show`: every child is counted once, every cost is told, and texts of a run cannot draw."""

import json

import pytest

from eva.reading import read_run
from eva.records import Child
from eva.serving.answers import Account, Answers
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


def asked(run, *accounts):
    for name, account in accounts:
        answers = Answers(run / "cache", name)
        answers.count(account)
        answers.close()


def cells(out, start):
    line = next(line for line in out.splitlines() if line.startswith(f"│ {start}"))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_what_servers_were_asked_is_told_at_the_end_and_at_any_time(tmp_path):
    run = tmp_path / "run"
    assert "asked of servers" not in said("run", "toy", str(run), *SETS)
    assert "asked of servers" not in said("show", str(run))
    assert json.loads(said("show", str(run), "--json"))["spent"] == []

    asked(run, ("http b", Account(3, 1, 2, 1500, 40, 0.0)), ("http [bold]a\x1b", Account(1)))
    for out in (said("show", str(run)), said("run", "toy", str(run), *SETS)):
        assert cells(out, "http b")[1:] == ["3", "1", "2", "1,500", "40"]
        assert cells(out, "http [bold]aU+001B")[1:] == ["1", "0", "0", "0", "0"]
        assert "cost" not in out

    asked(run, ("http b", Account(1, 0, 0, 10, 1, 0.25)))
    assert cells(said("show", str(run)), "http b")[1:] == ["4", "1", "2", "1,510", "41", "0.2500"]
    [_, found] = json.loads(said("show", str(run), "--json"))["spent"]
    assert found == {
        "model": "http b",
        **{"requests": 4.0, "hits": 1.0, "failed": 2.0},
        **{"prompt_tokens": 1510.0, "completion_tokens": 41.0, "money": 0.25},
    }
