"""Models in Hugging Face format: read whole or refused in one sentence, written to last."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from eva.errors import BackEndError


@dataclass(frozen=True)
class Weights:
    """A causal language model and what reads and writes its text."""

    model: PreTrainedModel
    """In float32, on the CPU: the master weights, so that small updates are not rounded away."""
    tokenizer: PreTrainedTokenizerBase
    """With its chat template."""


def opened(uri: str, revision: str | None = None) -> Weights:
    """The model and tokenizer in a folder or under a hub id.

    Raises:
        BackEndError: There is no such model, or some of its weights are missing.
    """
    try:
        with _no_progress_bars():
            # The types of transformers 5.23 leave out the pair that output_loading_info returns.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                uri, revision=revision, dtype=torch.float32, output_loading_info=True
            )
            model, report = loaded
            tokenizer = AutoTokenizer.from_pretrained(uri, revision=revision)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BackEndError(
            f"{uri} is no causal language model that transformers can load ({reason[0]}); expected "
            "a hub id, or a folder with config.json, *.safetensors and the files of a tokenizer"
        ) from error
    # transformers fills what is missing with random numbers and only warns.
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise BackEndError(
            f"{uri} lacks {len(missing)} weights of its model, such as {missing[0]}; expected a "
            "whole checkpoint: copy or download it again"
        )
    return Weights(model, tokenizer)


def saved(weights: Weights, folder: Path) -> None:
    """Write a model in Hugging Face format, float32, with tokenizer and generation config.

    On return the files are on the disk, so that a record that names them never outlives them.
    """
    with _no_progress_bars():
        weights.model.save_pretrained(folder)
        weights.tokenizer.save_pretrained(folder)
    for path in (*sorted(folder.iterdir()), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Keep only the input of each layer, and compute its activations again in the backward pass."""
    with warnings.catch_warnings():
        # transformers 5.23 renames this method and 5.16 has no other one; take the new name,
        # activation_checkpointing_enable, once the extra `hf` asks for 5.23.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]  # theirs
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Only the command line draws bars."""
    were_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    try:
        yield
    finally:
        if were_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
