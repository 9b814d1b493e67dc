"""Tiny random reward models, and prompts and responses in their words."""

import gc
import json
import weakref
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma2Config,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from eva.records import Message, Prompt, Response
from tests.tiny import PAD, SHAPE, WORDS, save_tiny

OBJECTIVES = 5
TEMPERATURE = 3.0


def alive(kind: str) -> "weakref.WeakSet[object]":
    """The models of a class, by its name, that somebody still holds."""
    gc.collect()
    return weakref.WeakSet(one for one in gc.get_objects() if type(one).__name__ == kind)


def prompt(*texts: str) -> Prompt:
    """Turns of user and assistant in turn; the last one is the user's."""
    roles = ("user", "assistant")
    turns = [Message(role=roles[i % 2], content=text) for i, text in enumerate(texts)]
    return Prompt(messages=tuple(turns))


def group(*texts: str) -> list[Response]:
    return [Response(text=text) for text in texts]


def failed() -> Response:
    return Response(text="", finish="error", error="the server refused the prompt")


PROMPTS = (prompt("w0 w1 w2"), prompt("w3", "w4 w5", "w6 w7 w8 w9"), prompt("w10"))
RESPONSES = (
    group("w11", "w12 w13 w14 w15 w16", "w11 w17"),
    group("w18 w19 w20", "w21", ""),
    group("w22 w23 w24 w25 w26 w27 w28 w29 w30", "w31 w0", "w31 w0"),
)


def save_classifier(config: PreTrainedConfig, path: Path) -> Path:
    return save_tiny(config, path, AutoModelForSequenceClassification, seed=1)


def llama_classifier(path: Path, **changes) -> Path:
    return save_classifier(LlamaConfig(**{**SHAPE, "num_labels": 1, **changes}), path)


def gemma2_classifier(path: Path, **changes) -> Path:
    own = {"sliding_window": 5, "query_pre_attn_scalar": 8, "num_labels": 1}
    return save_classifier(Gemma2Config(**{**SHAPE, **own, **changes}), path)


def bert_classifier(path: Path) -> Path:
    config = BertConfig(
        vocab_size=SHAPE["vocab_size"],
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        # Duels that are far from even, so that a wrong order shows.
        initializer_range=0.5,
        pad_token_id=PAD,
        num_labels=1,
    )
    return save_classifier(config, path)


HEADERS = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
)


def llama_3_tokenizer(path: Path, template: str = LLAMA_3) -> None:
    """Llama 3's way to write a chat, with a vocabulary of a few words."""
    words = ("<unk>", "<pad>", *HEADERS, "\n\n", "system", "user", "assistant", *WORDS)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"\n\n|[^ \n]+"), behavior="removed", invert=True
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=template,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(HEADERS[2:]),
    ).save_pretrained(path)


def armo(path: Path, **changed_tensors: torch.Tensor | None) -> Path:
    """A folder with the config keys and tensor names of ArmoRM; a tensor of None is left out."""
    shape = {**SHAPE, "vocab_size": 42, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    config = LlamaConfig(
        **shape,
        num_objectives=OBJECTIVES,
        gating_temperature=TEMPERATURE,
        gating_hidden_dim=6,
        gating_n_hidden=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        tensors = {f"model.{k}": v for k, v in LlamaModel(config).state_dict().items()}
        tensors["regression_layer.weight"] = torch.randn(OBJECTIVES, 32)
        tensors["reward_transform_matrix"] = torch.randn(OBJECTIVES, OBJECTIVES)
        tensors["gating.logit_scale"] = torch.tensor([1.5])
        for layer, (rows, columns) in enumerate([(6, 32), (6, 6), (OBJECTIVES, 6)]):
            tensors[f"gating.layers.{layer}.weight"] = torch.randn(rows, columns)
            tensors[f"gating.layers.{layer}.bias"] = torch.randn(rows)
    kept = {k: v for k, v in {**tensors, **changed_tensors}.items() if v is not None}
    path.mkdir(parents=True, exist_ok=True)
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    fields = config.to_dict() | {
        "architectures": ["LlamaForRewardModelWithGating"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.Absent"},
    }
    (path / "config.json").write_text(json.dumps(fields))
    llama_3_tokenizer(path)
    return path
