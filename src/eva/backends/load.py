"""From a folder or hub id to a model and its tokenizer, or to one sentence that says what is wrong.

Transformers meets a folder that is no model with a dozen kinds of exceptions, and weights that are
missing with a warning and random numbers; here both are a `BackEndError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from eva.config import HfPolicy
from eva.errors import BackEndError

LOADING_FAILED = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)
"""What transformers raises for a folder that is no model, or a hub id that it cannot get."""
CONTEXT_KEYS = ("max_position_embeddings", "n_positions")
"""The names under which configs keep the number of positions a model can see."""


def load_model(uri: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """The model in evaluation mode, on the CPU.

    Which attention kernel is used is left to transformers; it knows that Gemma 2 needs "eager".

    Raises:
        BackEndError: There is no causal language model at `uri`, or it lacks some weights.
    """
    with _explained(uri, "config.json and the weights of a causal language model"), no_bars():
        # The types of transformers 5.23 leave out the pair that output_loading_info returns.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            uri, revision=revision, dtype=dtype, output_loading_info=True
        )
    model: PreTrainedModel = loaded[0]
    missing = sorted(loaded[1]["missing_keys"])
    if missing:
        raise BackEndError(
            f"expected all weights of a causal language model; {uri} lacks {len(missing)} tensors "
            f"of {type(model).__name__}, the first is {missing[0]}; save the whole model there"
        )
    model.eval()  # type: ignore[no-untyped-call]  # theirs
    return model


def load_policy(uri: str, config: HfPolicy) -> PreTrainedModel:
    """The model in evaluation mode, on the device and in the dtype of the recipe.

    Raises:
        BackEndError: There is no causal language model at `uri`, or no such device.
    """
    device = _device(config.device)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    fitting = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = load_model(uri, config.revision, dtypes.get(config.dtype, fitting))
    return model.to(device)  # type: ignore[no-any-return, arg-type]  # `to` is decorated


def load_tokenizer(uri: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer; it has a chat template.

    Raises:
        BackEndError: There is no tokenizer at `uri`, or it has no chat template.
    """
    with _explained(uri, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(uri, revision=revision)
    if tokenizer.chat_template is None:
        raise BackEndError(
            f"expected a tokenizer with a chat template; the one of {uri} has none; take the "
            "instruction-tuned model, or save a chat_template.jinja beside the tokenizer"
        )
    return tokenizer


def load_context(uri: str, revision: str | None = None) -> int | None:
    """The number of tokens that the model at `uri` can see; None if it names no bound.

    Raises:
        BackEndError: There is no config at `uri`.
    """
    with _explained(uri, "config.json"):
        return context(AutoConfig.from_pretrained(uri, revision=revision))


def context(config: PreTrainedConfig) -> int | None:
    """The number of tokens that a model with this config can see; None if it names no bound."""
    fields = config.get_text_config(decoder=True).to_dict()
    sizes = [fields[key] for key in CONTEXT_KEYS if isinstance(fields.get(key), int)]
    return sizes[0] if sizes else None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackEndError(
            f'expected a device such as "auto", "cpu" or "cuda:1"; got "{name}"; '
            "correct policy.device"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackEndError(
            f'expected the device "{name}" of the recipe; torch sees {torch.cuda.device_count()} '
            'CUDA devices; set policy.device to "auto" or install a CUDA build of torch'
        )
    return device


@contextmanager
def _explained(uri: str, expected: str) -> Iterator[None]:
    try:
        yield
    except LOADING_FAILED as error:
        if Path(uri).is_dir():
            came = f"the folder {uri} cannot be read as one"
        elif Path(uri).is_absolute() or uri.startswith(("./", "../", "~")):
            came = f"the folder {uri} does not exist"
        else:
            came = f'there is no folder "{uri}" and no hub id of that name could be had'
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise BackEndError(
            f"expected {expected}; {came} ({type(error).__name__}: {reason}); correct the path, "
            "or for a hub id the name, the network and the access rights"
        ) from error


@contextmanager
def no_bars() -> Iterator[None]:
    """Only the command line draws progress bars."""
    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
