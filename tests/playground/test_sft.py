"""Supervised fine-tuning: reproducible, it learns, and it tells how far it is."""

import json

import numpy as np
import pytest
import torch

from eva.errors import RecipeError, RunDirError
from eva.playground.sft import FLOOR, WARMUP, rate, sft


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("sft") / "theta_0"
    told = []
    losses = sft(out, steps=60, batch=16, seed=1, progress=lambda *told_: told.append(told_))
    return out, losses, told


def test_the_loss_falls(trained):
    _, losses, _ = trained

    assert losses.shape == (60,)
    # At the start a guess among 35 tokens costs ln 35 = 3.56 nats.
    assert 3.4 < losses[0] < 4.2
    assert losses[-10:].mean() < 2.7


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sft(tmp_path / name, steps=20, batch=8, seed=seed)

    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"model.safetensors", "sft.jsonl"}


def test_progress_and_log_tell_every_step(trained):
    out, losses, told = trained

    assert told == [("sft", step, 60) for step in range(1, 61)]
    lines = [json.loads(line) for line in (out / "sft.jsonl").read_text().splitlines()]
    assert lines == [{"step": 60, "loss": round(float(losses.mean()), 4)}]


def test_a_folder_with_files_is_refused(trained):
    out, _, _ = trained

    with pytest.raises(RunDirError, match="is not empty; give a new folder"):
        sft(out, steps=1)


def test_training_leaves_the_number_of_threads_alone(tmp_path):
    before = torch.get_num_threads()

    sft(tmp_path / "out", steps=1, batch=1)

    assert torch.get_num_threads() == before


def test_the_rate_rises_for_the_warm_up_and_falls_on_a_cosine():
    rates = [rate(step, 1100) for step in range(1100)]

    assert rates[0] == 1 / WARMUP
    assert rates[WARMUP - 1] == rates[WARMUP] == 1.0
    # Half way between warm-up and end: the mean of peak and floor.
    assert rates[600] == pytest.approx((1 + FLOOR) / 2)
    assert rates[-1] == pytest.approx(FLOOR, abs=1e-4)
    assert np.all(np.diff(rates[WARMUP:]) <= 0)


def test_another_corpus_gives_another_model_and_an_unknown_one_is_refused(tmp_path):
    for corpus in ("short", "broad"):
        sft(tmp_path / corpus, steps=2, batch=8, seed=1, corpus=corpus)
    short, broad = (contents(tmp_path / corpus) for corpus in ("short", "broad"))
    assert short["model.safetensors"] != broad["model.safetensors"]
    with pytest.raises(RecipeError, match="no corpus 'wide'; known: short, broad"):
        sft(tmp_path / "wide", steps=1, corpus="wide")
