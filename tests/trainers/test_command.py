"""A learner that is a program: what it is given, and what is taken back."""

import json
import logging
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eva.backends.load import load_model, load_tokenizer
from eva.checkpoints import fingerprint
from eva.errors import BackEndError, RecipeError
from eva.export import Form, pair_rows
from eva.pairs import best_worst_pairs
from eva.parts.learners import Command
from eva.parts.policies import HfPolicy
from eva.protocols import Learner
from eva.records import Checkpoint, Rollout
from eva.store import read_records
from eva.trainers.command import make_learner
from tests.learn.runs import file_bytes, largest_difference
from tests.trainers.conftest import COPY, SEED, group

Make = Callable[..., Learner]
EXAMPLE = Path(__file__).parents[2] / "examples" / "command_learner.py"
PAGE = Path(__file__).parents[2] / "docs" / "plug-ins.md"


def test_the_files_say_what_there_is_to_learn(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    rng = np.random.default_rng(0)
    others = [group(rng, (1.0, 1.0)), group(rng, (None, 1.0)), group(rng, (0.0, 2.0), "length")]
    learner_of(COPY, "{start}", "{out}")(start, [*lessons, *others], out=out, seed=SEED)
    rows = [json.loads(line) for line in (out / "pairs.jsonl").read_bytes().splitlines()]
    assert rows == pair_rows(best_worst_pairs([*lessons, *others]).pairs, Form.trl)
    assert {row["chosen_finish"] for row in rows} == {"stop", "length"}
    assert read_records(out / "rollouts.jsonl", Rollout) == [*lessons, *others]
    job = json.loads((out / "job.json").read_bytes())
    assert job["counts"] == {"pairs": 13, "ties": 1, "missing": 1, "cut": 1}
    assert job["start"] == job["reference"] == start.uri
    assert job["seed"] == SEED % 2**31


def test_the_checkpoint_is_what_the_program_wrote(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    made = learner_of(COPY, "{start}", "{out}")(start, lessons, out=out, seed=SEED)
    assert made == Checkpoint(uri=str(out / "checkpoint"), id=fingerprint(Path(start.uri)))
    assert not (out / "checkpoint.part").exists()


def test_placeholders_and_variables_hold_the_same(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    program = """
    import json, os, shutil, sys
    names = [name for name in os.environ if name.startswith("EVA_")]
    print(json.dumps([sys.argv[1:], {name: os.environ[name] for name in sorted(names)}]))
    shutil.copytree(os.environ["EVA_START"], os.environ["EVA_OUT"], dirs_exist_ok=True)
    """
    names = ("start", "pairs", "rollouts", "out", "seed", "folder", "job")
    learner = learner_of(
        program, *(f"--x={{{name}}}" for name in names), "${out} {}", env={"EVA_MINE": "1"}
    )
    learner(start, lessons, out=out, seed=7)
    words, variables = json.loads((out / "command.log").read_bytes().splitlines()[-1])
    assert words == [f"--x={variables[f'EVA_{name.upper()}']}" for name in names] + ["${out} {}"]
    assert variables["EVA_SEED"] == "7"
    assert variables["EVA_FOLDER"] == str(out)
    assert variables["EVA_MINE"] == "1"


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (("python", "{pair}"), r"unknown placeholder \{pair\}; did you mean 'pairs'\?"),
        (("no-such-program", "{out}"), "there is no program 'no-such-program'"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_run(
    policy: HfPolicy, run: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make_learner(Command(kind="command", run=run), policy)


def test_without_pairs_nothing_is_run_and_the_start_is_the_checkpoint(
    learner_of: Make, start: Checkpoint, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ties = [group(np.random.default_rng(0), (1.0, 1.0))]
    with caplog.at_level(logging.INFO, "eva"):
        made = learner_of("raise SystemExit(3)")(start, ties, out=out, seed=SEED)
    assert made == start
    assert "no pairs: the command is not run" in caplog.text
    assert not (out / "command.log").exists()


def test_a_program_that_fails_is_one_error_with_the_end_of_its_log(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    program = """
    import sys
    print("of this attempt")
    sys.stderr.write("1 %\\r2 %\\r3 %\\n")
    sys.exit("no device left")
    """
    (out / "command.log").write_text("of an earlier attempt\n")
    with pytest.raises(BackEndError) as caught:
        learner_of(program, "a b")(start, lessons, out=out, seed=SEED)
    head, *lines = str(caught.value).split("\n")
    assert "ended with exit code 1: " in head
    assert head.count("'a b'") == 1
    assert lines == ["of this attempt", "3 %", "no device left"]
    assert (out / "command.log").read_text().startswith("of an earlier attempt\n$ ")
    assert not (out / "checkpoint").exists()


def test_a_program_that_vanished_since_the_recipe_was_read_is_one_error(
    tmp_path: Path, policy: HfPolicy, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    path = tmp_path / "mine"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    learner = make_learner(Command(kind="command", run=(str(path),)), policy)
    path.unlink()
    with pytest.raises(BackEndError, match=r"cannot be started \(No such file"):
        learner(start, lessons, out=out, seed=SEED)


def spoilt(folder: Path, how: str) -> None:
    """Do to a whole model what a program may forget or break."""
    weights = folder / "model.safetensors"
    match how:
        case "torn":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "not finite":
            tensors = load_file(weights)
            next(iter(tensors.values()))[0] = float("nan")
            save_file(tensors, weights, metadata={"format": "pt"})
        case "no weights":
            weights.rename(folder / "training_args.bin")
        case "no shard":
            index = {"weight_map": {"a": "model-1-of-2.safetensors"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        case "no config":
            (folder / "config.json").unlink()
        case "no template":
            (folder / "chat_template.jinja").unlink()
        case _:
            (folder / "tokenizer.json").unlink()
            (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("torn", "cannot be read"),
        ("not finite", "which the learner's command wrote, is not finite"),
        ("no weights", "there are no weights"),
        ("no shard", "model-1-of-2.safetensors is missing"),
        ("no config", "expected config.json"),
        ("no template", "has none"),
    ],
)
def test_half_a_model_is_refused(
    learner_of: Make,
    start: Checkpoint,
    lessons: list[Rollout],
    out: Path,
    tmp_path: Path,
    how: str,
    sentence: str,
) -> None:
    half = Path(shutil.copytree(start.uri, tmp_path / "half"))
    spoilt(half, how)
    with pytest.raises(BackEndError, match=sentence):
        learner_of(COPY, str(half), "{out}")(start, lessons, out=out, seed=SEED)
    assert not (out / "checkpoint").exists()


def test_a_program_that_writes_nothing_is_refused(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    with pytest.raises(BackEndError, match="ended well but wrote nothing"):
        learner_of("pass")(start, lessons, out=out, seed=SEED)


def test_a_tokenizer_that_was_not_saved_is_that_of_the_start(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(start.uri, tmp_path / "bare"))
    spoilt(bare, "no tokenizer")
    (bare / "chat_template.jinja").unlink()
    made = learner_of(COPY, str(bare), "{out}")(start, lessons, out=out, seed=SEED)
    ours, theirs = file_bytes(Path(made.uri)), file_bytes(Path(start.uri))
    assert ours["tokenizer.json"] == theirs["tokenizer.json"]
    assert ours["chat_template.jinja"] == theirs["chat_template.jinja"]


def test_a_finished_update_is_not_run_again_but_another_one_is(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    learner = learner_of(COPY, "{start}", "{out}")
    for seed in (1, 1, 2):
        learner(start, lessons, out=out, seed=seed)
    assert (out / "command.log").read_bytes().count(b"$ ") == 2


def test_the_example_program_learns(
    policy: HfPolicy, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    run = (sys.executable, str(EXAMPLE), "{start}", "{pairs}", "{out}", "{seed}")
    made = make_learner(Command(kind="command", run=run), policy)(
        start, lessons, out=out, seed=SEED
    )
    first = re.findall(r"loss (\S+)", (out / "command.log").read_text())[0]
    assert float(first) == pytest.approx(np.log(2), abs=1e-4)
    example = runpy.run_path(str(EXAMPLE))
    tokenizer = load_tokenizer(start.uri)
    rows = [json.loads(line) for line in (out / "pairs.jsonl").read_bytes().splitlines()]
    margins = []
    for uri in (start.uri, made.uri):
        model = load_model(uri, None, torch.float32)
        chats = [
            [example["encoded"](tokenizer, row["prompt"], row[s]) for s in ("chosen", "rejected")]
            for row in rows
        ]
        with torch.no_grad():
            logps = [[example["logp"](model, chat) for chat in pair] for pair in chats]
        margins.append(np.mean([float(chosen - rejected) for chosen, rejected in logps]))
    assert margins[1] > margins[0]


def test_the_program_on_the_page_writes_a_model(
    learner_of: Make, start: Checkpoint, lessons: list[Rollout], out: Path
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    (program,) = (block for block in blocks if "EVA_PAIRS" in block)
    made = learner_of(program)(start, lessons, out=out, seed=SEED)
    assert load_model(made.uri, None, torch.float32).config.model_type == "llama"
    assert largest_difference(start, made) > 1e-7


def test_an_adapter_is_no_start_for_a_program(
    tmp_path: Path, policy: HfPolicy, lessons: list[Rollout], out: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    learner = make_learner(Command(kind="command", run=("true",)), policy)
    with pytest.raises(BackEndError, match="is an adapter"):
        learner(Checkpoint(uri=str(tmp_path), id="a"), lessons, out=out, seed=SEED)
