"""Adapters as models: merged into their base, or refused in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from eva.backends.hf import context_gate
from eva.backends.load import load_adapter, load_context, load_model, load_tokenizer
from eva.errors import BackEndError
from eva.records import Message
from tests.tiny import tiny_llama

pytestmark = pytest.mark.filterwarnings(
    # PEFT 0.21 asks transformers 5.23 by a name that it renames; drop this once PEFT does not.
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)
IDS = torch.tensor([[1, 5, 8, 9, 6]])


def make_adapter(folder: Path, **choices) -> tuple[Path, torch.Tensor]:
    """An adapter as PEFT itself writes it, and what its model gives."""
    base = tiny_llama(folder / "base")
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "up_proj"], **choices)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
        logits = model(IDS).logits
    model.save_pretrained(folder / "adapter")
    return folder / "adapter", logits


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(str(folder), None, torch.float32)(IDS).logits


@pytest.mark.parametrize("choices", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_an_adapter_that_peft_wrote_is_merged_into_its_base(tmp_path, choices):
    adapter, expected = make_adapter(tmp_path, **choices)
    assert float((expected - logits(tmp_path / "base")).abs().max()) > 0.1
    torch.testing.assert_close(logits(adapter), expected, rtol=0.0, atol=1e-5)
    model = load_model(str(adapter), None, torch.float32)
    # It has the layers of its base again, all of them trainable, and nothing beside.
    base = load_model(str(tmp_path / "base"), None, torch.float32)
    assert [name for name, _ in model.named_parameters()] == [n for n, _ in base.named_parameters()]
    assert type(model) is type(base)
    assert not model.training
    assert all(weight.requires_grad for weight in model.parameters())


def test_an_adapter_is_merged_in_the_type_that_is_asked_for(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    model = load_model(str(adapter), None, torch.bfloat16)
    exact = load_model(str(adapter), None, torch.float32).state_dict()
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight.float(), exact[name], rtol=2**-7, atol=2**-9)


def test_an_adapter_of_an_adapter_is_merged_into_both(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    first = load_model(str(adapter), None, torch.float32)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(first, config)
    model.peft_config["default"].base_model_name_or_path = str(adapter)
    model.save_pretrained(tmp_path / "second", save_embedding_layers=False)
    with torch.no_grad():
        expected = model(IDS).logits
    torch.testing.assert_close(logits(tmp_path / "second"), expected, rtol=0.0, atol=1e-4)


def test_an_adapter_without_a_tokenizer_has_that_of_its_base(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    base = str(tmp_path / "base")
    assert load_tokenizer(str(adapter)).get_vocab() == load_tokenizer(base).get_vocab()
    own = load_tokenizer(base)
    own.chat_template = "{{ messages[0].content }}"
    own.save_pretrained(adapter)
    assert load_tokenizer(str(adapter)).chat_template == own.chat_template


def test_an_adapter_sees_as_far_as_its_base(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    assert load_context(str(adapter)) == load_context(str(tmp_path / "base")) == 64
    gate = context_gate(str(adapter), max_tokens=60)
    assert "64" in (gate([Message(role="user", content="w1 w2 w3 w4")]) or "")


def test_a_model_is_no_adapter(tmp_path):
    assert load_adapter(str(tiny_llama(tmp_path / "base"))) is None


def test_an_adapter_whose_base_is_gone_names_the_base(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(BackEndError, match=f"{tmp_path / 'base'} does not exist"):
        load_model(str(adapter), None, torch.float32)


def test_an_adapter_that_names_no_base_is_refused(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(BackEndError, match=r"adapter_config\.json .* base_model_name_or_path"):
        load_model(str(adapter), None, torch.float32)


def test_an_adapter_that_lacks_a_matrix_is_never_filled_with_random_numbers(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    del tensors["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"]
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(BackEndError, match=r"expected all weights of an adapter .* lacks some"):
        load_model(str(adapter), None, torch.float32)


def test_damaged_weights_of_an_adapter_are_refused(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    (adapter / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BackEndError, match="the weights of an adapter"):
        load_model(str(adapter), None, torch.float32)


def test_a_config_that_is_none_is_refused(tmp_path):
    adapter, _ = make_adapter(tmp_path)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(BackEndError, match=r"adapter_config\.json of PEFT"):
        load_model(str(adapter), None, torch.float32)


def test_a_tokenizer_that_is_saved_does_not_say_how_the_environment_was_set(tmp_path):
    folder = tiny_llama(tmp_path / "model")
    load_tokenizer(str(folder)).save_pretrained(tmp_path / "saved")
    assert "local_files_only" not in (tmp_path / "saved/tokenizer_config.json").read_text()
