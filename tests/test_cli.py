"""The command line: what it prints, its exit codes, and one sentence for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eva import recipe as recipes
from eva.cli.main import app
from eva.errors import RunDirError
from eva.records import Child, Prompt
from eva.store import read_records
from tests.world import SMALL

SETS = [word for override in SMALL for word in ("--set", override)]


def eva(*words: str, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    done = subprocess.run(
        [sys.executable, "-m", "eva", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert done.returncode == code, done.stderr
    return done


def said(*words: str) -> str:
    """What a verb prints, called in this process."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    said("run", "toy", str(path), *SETS)
    return path


def test_run_prints_a_line_for_each_round_and_where_it_lies(tmp_path):
    lines = said("run", "toy", str(tmp_path / "run"), *SETS).splitlines()
    assert [line.split(" | ")[0] for line in lines[:4]] == [f"round {t}/3" for t in range(4)]
    assert "hard 0." in lines[3]
    assert str(tmp_path / "run") in lines[4]


def test_run_speaks_json_to_machines(tmp_path):
    out = said("run", "toy", str(tmp_path / "run"), "--json", *SETS)
    rounds = [json.loads(line) for line in out.splitlines()]
    assert [r["round"] for r in rounds] == [0, 1, 2, 3]
    stored = json.loads((tmp_path / "run/rounds/000/metrics.json").read_text())
    assert {key: rounds[0][key] for key in stored} == stored


def test_the_default_run_directory_is_named_after_the_recipe(tmp_path):
    eva("run", "toy", *SETS, cwd=tmp_path)
    assert (tmp_path / "runs/toy/evals/003.json").exists()


def test_run_is_quiet_about_progress_when_it_is_not_on_a_terminal(tmp_path):
    done = eva("run", "toy", str(tmp_path / "run"), *SETS)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["run", "tou"], 2, "did you mean 'toy'?"),
        (["run", "toy", "RUN", "--set", "nn=3"], 2, "unknown key 'nn'; did you mean 'n'?"),
        (["check", "toy", "--set", "rounds=0"], 2, "rounds: input should be greater"),
        (["run", "toy", "/proc/nowhere"], 1, "cannot write"),
        (["show", "nowhere"], 1, "nowhere is no run directory"),
        (["report", "nowhere"], 1, "nowhere is no run directory"),
        (["export", "nowhere", "pairs", "--out", "x.jsonl"], 1, "has no lessons"),
        (["fly"], 2, "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_right_exit_code(tmp_path, words, code, sentence):
    done = eva(*[w.replace("RUN", str(tmp_path / "r")) for w in words], code=code, cwd=tmp_path)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback_too():
    done = eva("run", "tou", "--debug", code=2)
    assert "Traceback" in done.stderr


def test_version_is_that_of_the_package():
    import eva as package

    assert said("version").strip() == package.__version__


def test_check_counts_what_a_run_really_does(tmp_path):
    found = json.loads(said("check", "toy", "--json", *SETS))
    rounds = [
        json.loads(x) for x in said("run", "toy", str(tmp_path / "r"), "--json", *SETS).splitlines()
    ]
    samples = sum(r.get("samples", 0) for r in rounds)
    # The replayed part of a batch was just tried and is not answered again, so it is a bound.
    assert found["rounds"] == 3
    assert found["samples"] * 0.8 <= samples <= found["samples"]
    assert found["evolved prompts"] == sum(r.get("written", 0) for r in rounds)
    assert found["held-out samples"] == (4 + 4) * 4 * 4  # two sets of 4, t = 0..3, 1 + 3 samples


@pytest.mark.parametrize(
    ("override", "rounds_of_pool"),
    [("creator=null", 3), ("creator.evolve=null", 3), ("creator.estimate=last", 3)],
)
def test_check_counts_other_arms_exactly(tmp_path, override, rounds_of_pool):
    more = [*SETS, "--set", override]
    found = json.loads(said("check", "toy", "--json", *more))
    rounds = [
        json.loads(x) for x in said("run", "toy", str(tmp_path / "r"), "--json", *more).splitlines()
    ]
    assert found["samples"] == sum(r.get("samples", 0) for r in rounds) == rounds_of_pool * 8 * 4


def test_check_prints_a_table_and_the_difference_of_two_recipes():
    assert "samples" in said("check", "toy")
    table = said("check", "playground-eva", "playground-greedy")
    assert "creator.select.kind" in table
    assert "rounds" not in table
    assert "the same" in said("check", "toy", "toy")
    found = json.loads(said("check", "playground-eva", "playground-uniform", "--json"))
    assert found["creator.info"] == ["a_min", "uniform"]


def test_check_finds_a_function_that_is_not_there():
    done = eva("check", "toy", "--set", "reward={kind: rules, call: 'no_such_module_x:f'}", code=2)
    assert "'no_such_module_x' cannot be imported" in done.stderr


def test_check_does_not_load_a_data_set_to_count_it(tmp_path):
    out = said("check", "toy", "--set", "prompts={kind: dataset, path: org/set}")
    assert "not known before the run" in out


def test_check_plans_a_large_run_before_anything_is_downloaded():
    words = ["check", "gemma2-9b-dpo-eva", "--gpus", "8", "--gpu", "H100", "--gpu-price", "2"]
    found = json.loads(said(*words, "--json"))
    assert found["prompts"] == 10000
    assert found["gpu_money"] == found["gpu_hours"] * 2 > 0
    assert found["sentence"] == "fits"
    assert {one["phase"] for one in found["memory"]} == {"sample and reward", "learn"}
    table = said(*words, "--mean-tokens", "500", "--prompt-tokens", "100")
    assert table.rstrip().endswith("fits")
    small = said("check", "qwen3-small", "--gpu-memory", "6")
    assert "does not fit" in small
    assert "GiB, on GPU with 6 GiB" in small


def test_check_says_what_is_learnt_in_words_of_its_own():
    words = ["check", "gemma2-9b-dpo-eva", "--gpus", "8", "--gpu", "H100"]
    learning = json.loads(said(*words, "--json"))["learning"]
    table = said(*words)
    rows = {" ".join(row.split("│")[1:3]).strip() for row in table.splitlines() if "│" in row}
    lines = {" ".join(row.split()) for row in rows}
    assert f"tokens forward and backward {round(learning['trained']):,}" in lines
    assert f"tokens forward alone, e.g. the reference's {round(learning['scored']):,}" in lines
    assert f"optimiser steps {learning['steps']:,}" in lines
    asked = table.partition("who is asked")[2].partition("what is learnt")[0]
    assert "answer" in asked
    assert "learn" not in asked  # it reads and writes nothing


def test_check_asks_for_the_gpus_that_a_recipe_takes_for_granted():
    words = ["check", "gemma2-9b-dpo-eva", "--gpu", "H100", "--json"]
    sentence = json.loads(said(*words))["sentence"]
    assert sentence.startswith("does not fit: it needs 8 GPUs, for 8 processes (learner.launch)")
    assert "8 servers of google/gemma-2-9b-it" in sentence
    assert "the nearest setting that fits: --gpus 8; or ask for fewer" in sentence
    words[1] = "gemma2-9b-rloo-eva"
    sentence = json.loads(said(*words))["sentence"]
    assert "RLHFlow/ArmoRM-Llama3-8B-v0.1 on cuda:1, and --gpus is 1" in sentence
    assert "the nearest setting that fits: --gpus 2;" in sentence
    assert json.loads(said(*words, "--gpus", "2"))["sentence"] == "fits"


def test_a_memory_that_is_given_takes_the_place_of_the_cards_own():
    words = ["check", "gemma2-9b-dpo-eva", "--gpus", "8", "--gpu", "H100", "--gpu-memory", "24"]
    found = json.loads(said(*words, "--json"))
    assert found["machine"]["card"]["memory"] == 24
    assert found["hours"] is not None  # the speed is the card's
    assert found["sentence"].startswith("does not fit: learn needs")
    assert "GiB, on 8 x H100 with 24 GiB" in said(*words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["toy", "--mean-tokens", "nan"], "mean-tokens"),
        (["toy", "--mean-tokens", "0"], "mean-tokens"),
        (["toy", "--prompt-tokens", "inf"], "--prompt-tokens is inf; give a number"),
        (["toy", "--prompt-tokens", "-3"], "prompt-tokens"),
        (["toy", "--tokens-per-second", "inf"], "--tokens-per-second is inf; give a number"),
        (["toy", "--tokens-per-second", "nan"], "tokens-per-second"),
        (["toy", "--gpu-memory", "nan"], "gpu-memory"),
        (["toy", "--gpu-price", "inf"], "--gpu-price is inf; give a number"),
        (["toy", "--gpu", "H100", "--gpu-price", "nan"], "gpu-price"),
        (["toy", "--gpu-memory", "9", "--gpu-price", "2"], "name it with --gpu"),
        (["toy", "--prompts", "5"], "kind 'toy', which is counted itself"),
        (["qwen3-small", "--mean-tokens", "99999"], "no response is longer"),
        (["toy", "toy", "--gpus", "1", "--gpu", "H100"], "--gpus, --gpu: two recipes"),
    ],
)
def test_check_refuses_numbers_and_options_that_mean_nothing(words, sentence):
    done = eva("check", *words, code=2)
    assert sentence in done.stderr
    assert done.stdout == ""


BY = "by: {kind: http, model: m, urls: ['http://127.0.0.1:9/v1']}"
EVOLVE = "creator.evolve={kind: evol_instruct, " + BY
GATES = "creator.gates={"
LOCAL = {
    "no rubric": ("reward={kind: judge, rubric: no.md, " + BY + "}", "no rubric 'no.md'"),
    "empty rubric": ("reward={kind: judge, rubric: empty.md, " + BY + "}", "{prompt}"),
    "inner rubric": (
        "reward={kind: sum, terms: [{reward: {kind: judge, rubric: no.md, " + BY + "}}]}",
        "no rubric 'no.md'",
    ),
    "pairwise": ("reward={kind: pairwise, call: 'no_such_module_x:f'}", "cannot be imported"),
    "gate": (GATES + "answerable: {rubric: no.md, " + BY + "}}", "there is no file no.md"),
    "evals": (GATES + "contamination: {sets: {a: {kind: jsonl, path: no.jsonl}}}}", "no.jsonl"),
    "operator": (EVOLVE + ", operators: {depen: 1}}", "did you mean 'deepen'?"),
    "folder": (EVOLVE + ", templates: nowhere}", "there is no folder 'nowhere'"),
    "template": (EVOLVE + ", templates: own, operators: {mine: 1}}", "has no {prompt}"),
    "self_instruct": (
        "creator.evolve={kind: self_instruct, template: no.md, " + BY + "}",
        "no.md cannot be read",
    ),
}


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(("override", "sentence"), LOCAL.values(), ids=LOCAL)
def test_check_refuses_texts_that_run_refuses(tmp_path, verb, override, sentence):
    (tmp_path / "empty.md").write_text("Rate it.")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.md").write_text("Rewrite it.")
    done = eva(verb, "playground-eva", "--set", override, code=2, cwd=tmp_path)
    assert sentence in done.stderr


def test_check_takes_the_texts_that_are_there(tmp_path):
    (tmp_path / "mine.md").write_text("Make {prompt} harder.")
    own = f"{EVOLVE}, templates: {tmp_path}, operators: {{mine: 1, deepen: 2}}}}"
    judge = "reward={kind: judge, mode: pairs, " + BY + "}"
    gate = GATES + "answerable: {" + BY + "}}"
    words = ["--set", own, "--set", judge, "--set", gate]
    assert "the recipe is sound" in said("check", "playground-eva", *words)
    assert "sound" in said(
        "check", "playground-eva", "--set", "reward={kind: pairwise, call: 'math:dist'}"
    )


def test_check_plans_a_data_set_of_a_given_size_and_a_run_on_a_cpu():
    unknown = "prompts={kind: dataset, path: org/set}"
    found = json.loads(said("check", "toy", "--set", unknown, "--prompts", "50", "--json"))
    assert found["prompts"] == 50
    few = "prompts={kind: dataset, path: org/set, limit: 20}"
    found = json.loads(said("check", "toy", "--set", few, "--prompts", "50", "--json"))
    assert found["prompts"] == 20
    assert "GiB of main memory" in said("check", "playground-eva")
    done = eva("check", "toy", "--gpu", "abacus", code=2)
    assert "no card that eva knows" in done.stderr


@pytest.mark.parametrize("name", recipes.shipped())
def test_every_shipped_recipe_can_be_planned(name):
    found = json.loads(said("check", name, "--json", "--gpu", "H100", "--gpus", "8"))
    assert found["sentence"]
    assert all(not one["unknown"] for one in found["memory"])


def test_check_loads_no_torch():
    asked = "import sys; from eva.cli.main import app; app(sys.argv[1:], standalone_mode=False); "
    code = asked + "assert not {'torch', 'transformers', 'aiohttp'} & set(sys.modules)"
    words = ["check", "gemma2-9b-dpo-eva", "--gpu", "H100", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_show_lists_the_rounds_and_some_prompts(run):
    out = said("show", str(run))
    assert "3 of 3 rounds played" in out
    assert "round 2/3 | lessons" in out
    assert "follow one: eva show" in out


def test_show_follows_a_prompt_back_to_the_one_it_descends_from(run):
    used = {prompt.id for prompt in read_records(run / "rounds/002/batch.jsonl", Prompt)}
    children = read_records(run / "rounds/002/children.jsonl", Child)
    child = next(c for c in children if c.id in used)
    out = said("show", str(run), child.id[:12])
    assert child.parent in out
    assert child.change in out
    assert "by toy" in out
    found = json.loads(said("show", str(run), child.id, "--json"))
    assert found["prompt"]["id"] == child.id
    assert found["ancestors"][0]["id"] == child.parent
    assert found["ancestors"][-1]["parent"] is None
    assert len(found["answers"][0]["responses"]) == 4


def test_show_lists_the_children_of_a_parent(run):
    children = read_records(run / "rounds/001/children.jsonl", Child)
    found = json.loads(said("show", str(run), children[0].parent, "--json"))
    assert {c["id"] for c in found["children"]} >= {
        c.id for c in children if c.parent == children[0].parent
    }


def test_show_speaks_json_and_names_what_is_not_there(run):
    found = json.loads(said("show", str(run), "--json"))
    assert [r["finished"] for r in found["rounds"]] == [True] * 3
    with pytest.raises(RunDirError, match="none does"):
        said("show", str(run), "zzzz")
    with pytest.raises(RunDirError, match=r"\d+ do: "):
        said("show", str(run), "")


@pytest.mark.parametrize("form", ["eva", "trl", "verl", "openrlhf"])
@pytest.mark.parametrize("what", ["pairs", "prompts"])
def test_export_writes_what_the_trainer_reads(run, tmp_path, what, form):
    out = said("export", str(run), what, "--out", str(tmp_path / "x.jsonl"), "--for", form)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_bytes().splitlines()]
    assert out.startswith(f"{len(rows)} {what}")
    if what == "pairs" and form == "trl":
        assert rows[0]["chosen"][0]["role"] == "assistant"
        assert rows[0]["prompt"][0]["role"] == "user"
        assert rows[0]["margin"] > 0
    if what == "prompts" and form == "verl":
        assert set(rows[0]) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}


def test_export_takes_one_round_and_writes_parquet(run, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    said("export", str(run), "prompts", "--out", str(tmp_path / "x.parquet"), "--round", "1")
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 8


def test_export_refuses_what_it_cannot_write(run, tmp_path):
    done = eva("export", str(run), "pairs", "--out", str(tmp_path / "x.csv"), code=2)
    assert ".jsonl or .parquet" in done.stderr
    done = eva("export", str(run), "pairs", "--out", "x.jsonl", "--round", "9", code=1)
    assert "rounds with lessons: 000, 001, 002" in done.stderr


def test_new_makes_a_folder_that_is_sound_and_is_not_overwritten(tmp_path):
    eva("new", "mine", cwd=tmp_path)
    out = json.loads(eva("check", "mine/recipe.yaml", "--json", cwd=tmp_path).stdout)
    assert out["prompts"] == 12
    done = eva("new", "mine", code=1, cwd=tmp_path)
    assert "is no empty folder" in done.stderr


def test_report_writes_a_page_and_a_picture(run, tmp_path):
    pytest.importorskip("altair")
    out = said(
        "report", str(run), "--out", str(tmp_path / "p.html"), "--picture", str(tmp_path / "p.svg")
    )
    assert (tmp_path / "p.html").read_text("utf-8").lower().startswith("<!doctype html>")
    assert (tmp_path / "p.svg").read_text("utf-8").startswith("<svg")
    assert str(tmp_path / "p.html") in out.replace("\n", "")


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    import signal
    import time

    process = subprocess.Popen(
        [sys.executable, "-m", "eva", "run", "toy", str(tmp_path / "run"), "--set", "rounds=4000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run/evals/001.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in err
