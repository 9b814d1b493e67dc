"""Tiny random models with their own tokenizers, made on the spot: no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.utils import logging

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>")
WORDS = tuple(f"w{i}" for i in range(32))
PAD, BOS, EOS = 0, 1, 2
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} <{{ m.role }}> {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
SHAPE = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    # Far from uniform, so that a wrong mask or position changes greedy answers.
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def tiny_tokenizer(path: Path, words: Sequence[str] = WORDS) -> None:
    """Words "w0" ... "w31"; like Llama's it puts <bos> before every text that it encodes."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    ).save_pretrained(path)


def tiny_llama(path: Path) -> Path:
    return save_tiny(LlamaConfig(**SHAPE), path)


def tiny_qwen3(path: Path) -> Path:
    return save_tiny(Qwen3Config(**SHAPE), path)


def tiny_gemma2(path: Path, sliding_window: int = 5) -> Path:
    """Half of its layers see the last `sliding_window` tokens; its logits are soft-capped.

    The embeddings are not tied: a random tied model of this kind says its last token for ever.
    """
    config = Gemma2Config(
        **SHAPE,
        sliding_window=sliding_window,
        query_pre_attn_scalar=8,
        tie_word_embeddings=False,
    )
    return save_tiny(config, path)


def bigram_llama(path: Path, follows: Mapping[str, Sequence[str]]) -> Path:
    """A Llama whose weights are set by hand: after a word comes one of those that follow it.

    All that follow a word are equally likely, so a word that is named twice is twice as likely. Its
    layers add nothing: the hidden state is the embedding of the last token, the head is a table.
    """
    words = sorted({*follows, *(w for found in follows.values() for w in found)} - {*SPECIAL})
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    size = len(vocabulary) + len(vocabulary) % 2
    shape = {"vocab_size": size, "hidden_size": size, "num_attention_heads": 1, "head_dim": 8}
    config = LlamaConfig(
        **{**SHAPE, **shape, "num_key_value_heads": 1, "num_hidden_layers": 1},
        tie_word_embeddings=False,
    )
    config.max_position_embeddings = 4096
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config)
    table = torch.full((size, size), -1e4)
    for word, found in follows.items():
        for one in found:
            share = found.count(one) / len(found)
            table[vocabulary[one], vocabulary[word]] = torch.tensor(share).log()
    layer = model.model.layers[0]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.copy_(table / size**0.5)  # the last norm scales a unit vector so
    model.save_pretrained(path)
    tiny_tokenizer(path, words)
    return path


def tiny_gpt2(path: Path) -> Path:
    """Learned positions; input and output embeddings are one."""
    config = GPT2Config(
        vocab_size=SHAPE["vocab_size"],
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return save_tiny(config, path)


def save_tiny(
    config: PreTrainedConfig, path: Path, kind: Any = AutoModelForCausalLM, seed: int = 0
) -> Path:
    """A random model of this config, always the same one, and the tokenizer beside it."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind.from_config(config).save_pretrained(path)
    if drawn:
        logging.enable_progress_bar()
    tiny_tokenizer(path)
    return path
