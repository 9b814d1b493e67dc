import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from eva.errors import BackEndError
from eva.learn.scorer import Scorer
from eva.learn.weights import Weights, opened, saved
from eva.records import Checkpoint

MakeStart = Callable[..., Checkpoint]


def write(weights: Weights, folder: Path) -> None:
    saved(weights, Accelerator(cpu=True), Scorer(weights.model, None), folder)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gpt2"])
def test_saved_weights_give_the_same_logits(
    make_start: MakeStart, tmp_path: Path, kind: str
) -> None:
    start = make_start(kind).uri
    generation = {"max_new_tokens": 9, "do_sample": True, "eos_token_id": [2, 5]}
    Path(start, "generation_config.json").write_text(json.dumps(generation))
    weights = opened(start)
    with torch.no_grad():
        for weight in weights.model.parameters():
            weight.add_(0.01)
    write(weights, tmp_path / "saved")

    again = opened(str(tmp_path / "saved"))
    ids = torch.tensor([[1, 5, 8, 9, 6]])
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, weights.model(ids).logits)
    assert again.model.generation_config.max_new_tokens == 9
    assert again.model.generation_config.eos_token_id == [2, 5]
    chat = [{"role": "user", "content": "w0 w1"}]
    assert again.tokenizer.apply_chat_template(chat) == weights.tokenizer.apply_chat_template(chat)


def test_bfloat16_weights_are_opened_as_float32_master_weights(
    make_start: MakeStart, tmp_path: Path
) -> None:
    weights = opened(make_start().uri)
    weights.model.to(torch.bfloat16)
    write(weights, tmp_path / "half")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert opened(str(tmp_path / "half")).model.dtype == torch.float32


def test_gemma2_attends_eagerly_because_of_its_soft_caps(make_start: MakeStart) -> None:
    assert opened(make_start("gemma2").uri).model.config._attn_implementation == "eager"


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BackEndError, match="weights of a causal language model"):
        opened(str(tmp_path))


def test_a_model_without_tokenizer_is_refused(make_start: MakeStart, tmp_path: Path) -> None:
    start = Path(make_start().uri)
    for path in start.glob("*token*"):
        path.unlink()
    with pytest.raises(BackEndError, match="expected a tokenizer"):
        opened(str(start))


def test_damaged_weights_are_refused(make_start: MakeStart) -> None:
    start = Path(make_start().uri)
    (start / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BackEndError, match="weights of a causal language model"):
        opened(str(start))


def test_a_checkpoint_that_lacks_a_weight_is_never_filled_with_random_numbers(
    make_start: MakeStart,
) -> None:
    file = Path(make_start().uri) / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BackEndError, match=r"lacks 1 tensors .* model\.layers\.1\.mlp\.up_proj"):
        opened(str(file.parent))


@pytest.mark.parametrize("is_on", [True, False])
def test_progress_bars_are_left_as_they_were(make_start: MakeStart, is_on: bool) -> None:
    start = make_start()
    before = transformers_logging.is_progress_bar_enabled()
    switch = {True: transformers_logging.enable_progress_bar}
    switch[False] = transformers_logging.disable_progress_bar
    try:
        switch[is_on]()
        opened(start.uri)
        assert transformers_logging.is_progress_bar_enabled() == is_on
    finally:
        switch[before]()
