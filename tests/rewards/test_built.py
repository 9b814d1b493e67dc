"""Rewards as a recipe builds them, a real model behind each."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from eva.build.rewards import reward
from eva.parts.rewards import RewardPart
from eva.protocols import Releasable
from tests.rewards.models import PROMPTS, RESPONSES, armo, bert_classifier, llama_classifier
from tests.tiny import tiny_llama

PART = TypeAdapter(RewardPart)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    llama_classifier(folder / "llama")
    armo(folder / "armo")
    bert_classifier(folder / "bert")
    tiny_llama(folder / "writer")
    (folder / "short.md").write_text("{prompt} {response}")
    return folder


def built(fields: dict, folder):
    found = reward(PART.validate_python(fields), folder, None, "reward")
    assert isinstance(found, Releasable)
    try:
        return found(PROMPTS, RESPONSES)
    finally:
        found.release()


def test_a_recipe_builds_classifiers_sums_and_penalties_of_them(folder):
    plain = {"kind": "hf", "model": str(folder / "llama"), "device": "cpu"}
    gated = {"kind": "hf", "head": "armo", "model": str(folder / "armo"), "device": "cpu"}
    terms = [{"weight": 0.5, "reward": plain}, {"reward": gated}]
    shorter = {
        "kind": "length",
        "penalty": 0.25,
        "unit": "words",
        "of": {"kind": "sum", "terms": terms},
    }
    expected = 0.5 * built(plain, folder) + built(gated, folder)
    words = np.array([[len(y.text.split()) for y in group] for group in RESPONSES])
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(built(shorter, folder), expected - 0.25 * words, rtol=1e-12)


def test_a_recipe_builds_a_classifier_of_pairs(folder):
    part = {"kind": "pairwise", "model": str(folder / "bert"), "device": "cpu"}
    found = built(part, folder)
    np.testing.assert_allclose(found.mean(axis=1), 0.5, rtol=1e-12)


def test_a_recipe_builds_a_judge_whose_nonsense_is_missing(folder, caplog):
    by = {"kind": "hf", "model": str(folder / "writer"), "device": "cpu"}
    part = {
        "kind": "judge",
        "by": by,
        "rubric": str(folder / "short.md"),
        "sampling": {"max_tokens": 4},
    }
    assert np.isnan(built(part, folder)).all()
    assert "8 of 8 verdicts" in caplog.text  # one of the nine responses is written twice


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "hf", "model": "m", "trust_remote_code": True}, "needs a revision"),
        ({"kind": "pairwise"}, "give either call"),
        ({"kind": "judge", "by": {"kind": "hf", "model": "m"}, "low": 5, "high": 5}, "not below"),
        ({"kind": "judge", "by": {"kind": "hf", "model": "m"}, "votes": 3}, "temperature above 0"),
        ({"kind": "http", "urls": []}, "at least 1 item"),
        ({"kind": "sum", "terms": []}, "at least 1 item"),
    ],
)
def test_a_part_that_cannot_be_is_refused(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        PART.validate_python(fields)
