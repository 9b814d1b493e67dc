"""Reward models: the same number as a plain loop without padding, whatever the batches."""

import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eva.errors import BackEndError, RecipeError
from eva.parts.rewards import ClassifierReward
from eva.protocols import Releasable
from eva.records import Message, Prompt
from eva.rewards.classifier import Classifier
from tests.rewards.models import (
    PROMPTS,
    RESPONSES,
    alive,
    failed,
    gemma2_classifier,
    group,
    llama_classifier,
    prompt,
)
from tests.tiny import BOS, EOS, TEMPLATE, tiny_llama


def classifier(path, **choices) -> Classifier:
    return Classifier(ClassifierReward(kind="hf", model=str(path), device="cpu", **choices))


def one_at_a_time(path, index: int = 0) -> np.ndarray:
    """What transformers gives for each chat by itself, written out by hand."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    rewards = []
    for x, answers in zip(PROMPTS, RESPONSES, strict=True):
        for y in answers:
            turns = [*x.messages, Message(role="assistant", content=y.text)]
            words = " ".join(f"<{turn.role}> {turn.content}" for turn in turns).split()
            ids = [BOS, *tokenizer.convert_tokens_to_ids(words)]
            with torch.no_grad():
                rewards.append(float(model(torch.tensor([ids])).logits[0, index]))
    return np.array(rewards).reshape(len(PROMPTS), -1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifiers")
    return {
        "llama": llama_classifier(folder / "llama"),
        "gemma2": gemma2_classifier(folder / "gemma2"),
        "no pad": llama_classifier(folder / "no_pad", pad_token_id=None),
    }


@pytest.mark.parametrize("kind", ["llama", "gemma2", "no pad"])
@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_padding_and_batches_change_nothing(folders, kind, batch_tokens):
    found = classifier(folders[kind], batch_tokens=batch_tokens)(PROMPTS, RESPONSES)
    expected = one_at_a_time(folders[kind])
    assert found.dtype == np.float64
    assert float(np.ptp(expected)) > 0.1
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(3)), batch_tokens=st.integers(1, 200))
def test_the_order_of_prompts_and_responses_changes_nothing(folders, order, batch_tokens):
    expected = one_at_a_time(folders["llama"])
    prompts = [PROMPTS[i] for i in order]
    responses = [[RESPONSES[i][j] for j in reversed(order)] for i in order]
    found = classifier(folders["llama"], batch_tokens=batch_tokens)(prompts, responses)
    shuffled = expected[list(order)][:, list(reversed(order))]
    np.testing.assert_allclose(found, shuffled, rtol=0.0, atol=1e-5)


def test_a_model_whose_chats_end_with_its_padding_token_gives_what_transformers_gives(tmp_path):
    path = llama_classifier(tmp_path / "m", pad_token_id=EOS)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = TEMPLATE + "{{ ' <eos>' }}"
    tokenizer.save_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    chat = tokenizer("<user> w10 <assistant> w31 w0 <eos>", return_tensors="pt").input_ids
    assert chat[0, -1] == EOS
    with torch.no_grad():
        expected = float(model(chat).logits)
    found = classifier(path)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(found[2, 1], expected, rtol=0.0, atol=1e-5)


def test_equal_responses_tie_exactly(folders):
    found = classifier(folders["llama"], batch_tokens=30)(PROMPTS, RESPONSES)
    assert found[2, 1] == found[2, 2]


def test_an_output_is_chosen_by_its_number(tmp_path):
    path = llama_classifier(tmp_path / "m", num_labels=3)
    found = classifier(path, index=2)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(found, one_at_a_time(path, index=2), rtol=0.0, atol=1e-5)
    with pytest.raises(RecipeError, match=r"reward\.index is 3; the classifier has 3 outputs"):
        classifier(path, index=3)(PROMPTS, RESPONSES)


def test_a_chat_that_is_too_long_is_missing_and_never_cut(folders, caplog):
    # <bos>, <user>, 3 words, <assistant> are 6 tokens; the responses have 1, 5 and 2.
    with caplog.at_level(logging.WARNING, "eva"):
        found = classifier(folders["llama"], max_tokens=10)(PROMPTS[:1], RESPONSES[:1])
    assert np.isnan(found).tolist() == [[False, True, False]]
    (line,) = caplog.messages
    assert "1 of 3 rewards" in line
    assert "longer than 10 tokens" in line
    assert PROMPTS[0].id in line


def test_the_model_s_context_bounds_a_chat_where_the_recipe_does_not(folders):
    # Its context is 64: <bos>, <user>, 1 word, <assistant> and 60 words fit, 61 do not.
    found = classifier(folders["llama"])([PROMPTS[2]], [group("w1 " * 60, "w1 " * 61)])
    assert np.isnan(found).tolist() == [[False, True]]


def test_an_answer_that_the_policy_could_not_give_is_missing(folders):
    found = classifier(folders["llama"])(PROMPTS[:1], [[failed(), *RESPONSES[0][:1]]])
    assert np.isnan(found).tolist() == [[True, False]]


def test_a_chat_that_the_template_refuses_is_missing(folders, tmp_path, caplog):
    path = llama_classifier(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        + TEMPLATE
    )
    tokenizer.save_pretrained(path)
    system = Prompt(messages=(Message(role="system", content="w1"), *PROMPTS[0].messages))
    with caplog.at_level(logging.WARNING, "eva"):
        found = classifier(path)([system, PROMPTS[0]], [group("w1"), group("w1")])
    assert np.isnan(found).tolist() == [[True], [False]]
    assert "no system turn" in caplog.text


def test_release_frees_the_model_and_the_next_call_loads_it_again(folders):
    held = len(alive("LlamaModel"))
    reward = classifier(folders["llama"])
    before = reward(PROMPTS, RESPONSES)
    loaded = alive("LlamaModel")
    assert len(loaded) == held + 1
    assert isinstance(reward, Releasable)
    reward.release()
    assert len(loaded) == held
    assert np.array_equal(reward(PROMPTS, RESPONSES), before)


def test_no_prompts_have_no_rewards(folders):
    assert classifier(folders["llama"])([], []).shape == (0, 0)


def test_a_language_model_is_no_reward_model(tmp_path):
    with pytest.raises(
        BackEndError, match=r"1 tensors are missing.*score\.weight; give a reward model"
    ):
        classifier(tiny_llama(tmp_path))(PROMPTS, RESPONSES)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(BackEndError, match="does not exist"):
        classifier(tmp_path / "absent")(PROMPTS, RESPONSES)


def test_a_device_that_is_not_there_is_one_sentence(folders):
    part = ClassifierReward(kind="hf", model=str(folders["llama"]), device="cuda:7")
    with pytest.raises(BackEndError, match=r"set reward\.device"):
        Classifier(part)(PROMPTS, RESPONSES)


def test_broken_weights_are_an_error_and_no_missing_reward(tmp_path):
    path = llama_classifier(tmp_path / "m")
    model = AutoModelForSequenceClassification.from_pretrained(path)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(path)
    with pytest.raises(BackEndError, match="finite scores"):
        classifier(path)(PROMPTS, RESPONSES)


def test_bfloat16_gives_nearly_the_same(folders):
    found = classifier(folders["llama"], dtype="bfloat16")(PROMPTS, RESPONSES)
    expected = one_at_a_time(folders["llama"])
    assert 0.0 < float(np.abs(found - expected).max()) < 0.1 * float(np.abs(expected).max())


CODE = """
import torch
from transformers import LlamaForSequenceClassification


class Own(LlamaForSequenceClassification):
    def forward(self, **inputs):
        inputs.pop("labels", None)
        found = super().forward(**inputs)
        found.logits = torch.full_like(found.logits, 7.0)
        return found
"""


@pytest.fixture
def with_code(tmp_path, monkeypatch):
    """A reward model that comes with code of its own."""
    for module in ("transformers.dynamic_module_utils", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", str(tmp_path / "modules"), raising=False)
    path = llama_classifier(tmp_path / "m")
    (path / "own.py").write_text(CODE)
    config = json.loads((path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "own.Own"}
    config["model_type"] = "llama"
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_code_that_comes_with_a_model_runs_only_where_the_recipe_trusts_it(with_code):
    assert float(np.nanmax(classifier(with_code)(PROMPTS, RESPONSES))) != 7.0
    trusting = classifier(with_code, trust_remote_code=True, revision="main")
    assert np.unique(trusting(PROMPTS, RESPONSES)).tolist() == [7.0]


def test_prompts_of_any_words_are_scored(folders):
    found = classifier(folders["llama"])([prompt("Zürich \u2028 {x}")], [group("🙂")])
    assert np.isfinite(found).all()
