"""ArmoRM's head against its formula, written out a second time in float64."""

import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from eva.errors import BackEndError
from eva.parts.rewards import ClassifierReward
from eva.records import Message, Prompt, Response
from eva.rewards import armo as heads
from eva.rewards.classifier import Classifier
from tests.rewards.models import (
    PROMPTS,
    RESPONSES,
    TEMPERATURE,
    armo,
    llama_3_tokenizer,
    llama_classifier,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return armo(tmp_path_factory.mktemp("armo"))


def reward(path, **choices) -> Classifier:
    return Classifier(
        ClassifierReward(kind="hf", head="armo", model=str(path), device="cpu", **choices)
    )


def by_hand(path, prompt: Prompt, response: Response) -> float:
    """The published formula for one chat by itself."""
    tensors = load_file(path / "model.safetensors")
    llama = LlamaModel(LlamaConfig.from_pretrained(path)).eval()
    inner = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    llama.load_state_dict(inner)
    text = "<|begin_of_text|>"
    for turn in (*prompt.messages, Message(role="assistant", content=response.text)):
        text += f"<|start_header_id|>{turn.role}<|end_header_id|>\n\n{turn.content}<|eot_id|>"
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    # The last end of turn ends the response; the one before ends the prompt, for the gate.
    ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id]
    with torch.no_grad():
        states = llama(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    head = {k: v.double().numpy() for k, v in tensors.items()}
    x = states[ends[-2]]
    for layer in range(3):
        x = head[f"gating.layers.{layer}.weight"] @ x + head[f"gating.layers.{layer}.bias"]
        x = np.maximum(x, 0.0) if layer < 2 else x
    weights = np.exp(x / TEMPERATURE) / np.exp(x / TEMPERATURE).sum()
    objectives = head["regression_layer.weight"] @ states[ends[-1]]
    debiased = objectives @ head["reward_transform_matrix"]
    return float(head["gating.logit_scale"][0] * (weights @ debiased))


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_the_reward_is_that_of_the_formula_in_any_batch(folder, batch_tokens):
    expected = [
        [by_hand(folder, x, y) for y in answers]
        for x, answers in zip(PROMPTS, RESPONSES, strict=True)
    ]
    assert float(np.ptp(expected)) > 0.5
    found = reward(folder, batch_tokens=batch_tokens)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_gate_reads_the_end_of_the_last_prompt_turn(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    header = heads.header_of(tokenizer)
    assert tokenizer.convert_ids_to_tokens(header) == [
        "<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"
    ]  # fmt: skip
    chat = [{"role": turn.role, "content": turn.content} for turn in PROMPTS[1].messages]
    chat.append({"role": "assistant", "content": "w1 w2"})
    row = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    # Behind the header stand the two words and the end of the turn.
    assert heads.gate_place(row, header) == len(row) - 3 - len(header)


def test_the_head_keeps_float32_where_the_llama_has_bfloat16(folder):
    part = ClassifierReward(
        kind="hf", head="armo", model=str(folder), device="cpu", dtype="bfloat16"
    )
    model = heads.load_armo(part)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    kept = [model.regression_layer.weight, model.gating.layers[0].weight, model.gating.logit_scale]
    assert {w.dtype for w in (*kept, model.reward_transform_matrix)} == {torch.float32}
    found = reward(folder, dtype="bfloat16")(PROMPTS, RESPONSES)
    exact = reward(folder)(PROMPTS, RESPONSES)
    assert 0.0 < float(np.abs(found - exact).max()) < 0.1 * float(np.abs(exact).max())


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"gating.layers.1.bias": None}, r"1 tensors are missing.*gating\.layers\.1\.bias"),
        ({"score.weight": torch.ones(1, 32)}, r"1 tensors are unexpected.*score\.weight"),
        (
            {"regression_layer.weight": torch.ones(4, 32)},
            r"1 tensors are of another shape.*regression",
        ),
    ],
)
def test_weights_of_another_shape_are_refused(tmp_path, tensors, expected):
    path = armo(tmp_path, **tensors)
    with pytest.raises(BackEndError, match=expected):
        reward(path)(PROMPTS, RESPONSES)


def test_a_classifier_is_no_armo_and_an_armo_no_classifier(folder, tmp_path):
    with pytest.raises(BackEndError, match="expected the weights of an ArmoRM"):
        reward(llama_classifier(tmp_path))(PROMPTS, RESPONSES)
    with pytest.raises(BackEndError, match=r"set reward\.head to armo"):
        Classifier(ClassifierReward(kind="hf", model=str(folder), device="cpu"))(PROMPTS, RESPONSES)


def test_a_chat_without_the_header_of_llama_3_is_missing(tmp_path, caplog):
    path = armo(tmp_path)
    llama_3_tokenizer(path, template="{% for m in messages %}{{ m.content }} {% endfor %}")
    with caplog.at_level(logging.WARNING, "eva"):
        found = reward(path)(PROMPTS[:1], RESPONSES[:1])
    assert np.isnan(found).all()
    assert "no header of Llama 3" in caplog.text
