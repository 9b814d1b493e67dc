"""Models in Hugging Face format: read whole or refused in one sentence, written to last."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eva.backends.load import load_model, load_tokenizer, no_bars


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
    model = load_model(uri, revision, torch.float32)
    return Weights(model, load_tokenizer(uri, revision))


def saved(weights: Weights, folder: Path) -> None:
    """Write a model in Hugging Face format, float32, with tokenizer and generation config.

    Whoever records the checkpoint syncs it to the disk first (`eva.store.settle`).
    """
    with no_bars():
        weights.model.save_pretrained(folder)
        weights.tokenizer.save_pretrained(folder)


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Keep only the input of each layer, and compute its activations again in the backward pass."""
    with warnings.catch_warnings():
        # transformers 5.23 renames this method and 5.16 has no other one; take the new name,
        # activation_checkpointing_enable, once the extra `hf` asks for 5.23.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]  # theirs
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
