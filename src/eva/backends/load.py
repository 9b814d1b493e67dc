"""From a folder or hub id to a model and its tokenizer, or to one sentence that says what is wrong.

Transformers meets a folder that is no model with a dozen kinds of exceptions, and weights that are
missing with a warning and random numbers; here both are a `BackEndError`. A folder may also hold a
PEFT adapter, which names the model that it changes; that model is loaded and the adapter merged in.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
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
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from eva.errors import BackEndError
from eva.parts.policies import HfPolicy

LOADING_FAILED = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)
"""What transformers raises for a folder that is no model, or a hub id that it cannot get."""
MODEL = "config.json and the weights of a causal language model"
"""What is expected of a model."""
CONTEXT_KEYS = ("max_position_embeddings", "n_positions")
"""The names under which configs keep the number of positions a model can see."""


def load_model(uri: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """The model in evaluation mode, on the CPU; an adapter is merged into its base.

    Raises:
        BackEndError: There is no causal language model at `uri`, or it lacks some weights.
    """
    adapter = load_adapter(uri, revision)
    if adapter is not None:
        return _merged(load_model(*base_of(adapter), dtype), uri, revision)
    with explained(uri, MODEL), no_bars():
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
    heed_soft_caps(model)
    model.eval()  # type: ignore[no-untyped-call]  # theirs
    return model


def heed_soft_caps(model: PreTrainedModel) -> None:
    """Have a model whose attention logits are capped, e.g. Gemma 2, attend by the kernel "eager".

    For other models the kernel is left to transformers. Before 5.21 (those are what vLLM needs) it
    gives Gemma 2 a kernel that leaves the caps out, without a word.
    """
    fields = model.config.get_text_config(decoder=True).to_dict()
    if fields.get("attn_logit_softcapping") is not None:
        model.set_attn_implementation("eager")


def _merged(model: PreTrainedModel, uri: str, revision: str | None) -> PreTrainedModel:
    """The model with the adapter at `uri` added to its weights, so that it samples at full speed.

    The sum is rounded to the type of the model's weights.
    """
    incomplete = "Found missing adapter keys"
    with explained(uri, "the weights of an adapter"), warnings.catch_warnings():
        # PEFT trains what an adapter lacks from scratch, and only warns.
        warnings.filterwarnings("error", message=incomplete)
        # PEFT 0.21 asks transformers 5.23 by a name that it renames; drop this once PEFT does not.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        try:
            # Its declared result is that of any tuner.
            found: Any = PeftModel.from_pretrained(
                model, uri, revision=revision, torch_device="cpu"
            )
        except UserWarning as warning:
            raise BackEndError(
                f"expected all weights of an adapter of {type(model).__name__}; {uri} lacks some; "
                "save the whole adapter there"
            ) from warning
        merged: PreTrainedModel = found.merge_and_unload()
    merged.requires_grad_(requires_grad=True)  # PEFT froze it
    merged.eval()  # type: ignore[no-untyped-call]  # theirs
    return merged


def load_adapter(uri: str, revision: str | None = None) -> PeftConfig | None:
    """The config of the PEFT adapter at `uri`; None if there is none, for what is there is a model.

    Raises:
        BackEndError: It cannot be read, or it does not say which model it changes.
    """
    with explained(uri, MODEL):
        if find_adapter_config_file(uri, revision=revision) is None:
            return None
    with explained(uri, "adapter_config.json of PEFT"):
        config: PeftConfig = PeftConfig.from_pretrained(uri, revision=revision)
    if not config.base_model_name_or_path:
        raise BackEndError(
            f"expected an adapter that names its base; adapter_config.json of {uri} has no "
            "base_model_name_or_path; write the folder or hub id of the base there"
        )
    return config


def base_of(adapter: PeftConfig) -> tuple[str, str | None]:
    """The folder or hub id of the model that an adapter changes, and its revision."""
    return str(adapter.base_model_name_or_path), adapter.revision


def load_policy(uri: str, config: HfPolicy) -> PreTrainedModel:
    """The model in evaluation mode, on the device and in the dtype of the recipe.

    Raises:
        BackEndError: There is no causal language model at `uri`, or no such device.
    """
    device, dtype = placed(config.device, config.dtype, "policy")
    model = load_model(uri, config.revision, dtype)
    return model.to(device)  # type: ignore[no-any-return, arg-type]  # `to` is decorated


def placed(device: str, dtype: str, part: str) -> tuple[torch.device, torch.dtype]:
    """The device and the number type that a part of a recipe asks for.

    Raises:
        BackEndError: There is no such device; `part` is the key that named it.
    """
    found = _device(device, part)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    fitting = torch.bfloat16 if found.type == "cuda" else torch.float32
    return found, dtypes.get(dtype, fitting)


def load_tokenizer(
    uri: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer; it has a chat template. An adapter without one takes that of its base.

    Raises:
        BackEndError: There is no tokenizer at `uri`, or it has no chat template, or it needs code
            of its own that is not trusted.
    """
    adapter = load_adapter(uri, revision)
    if adapter is not None and not _has_tokenizer(uri, revision):
        return load_tokenizer(*base_of(adapter))
    with explained(uri, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            uri, revision=revision, trust_remote_code=trust_remote_code
        )
    # It says how the environment was set; written into a checkpoint it would change its bytes.
    tokenizer.init_kwargs.pop("local_files_only", None)
    if tokenizer.chat_template is None:
        raise BackEndError(
            f"expected a tokenizer with a chat template; the one of {uri} has none; take the "
            "instruction-tuned model, or save a chat_template.jinja beside the tokenizer"
        )
    return tokenizer


def _has_tokenizer(uri: str, revision: str | None) -> bool:
    with explained(uri, "a tokenizer"):
        # Its declared result leaves out None.
        found: Any = cached_file(
            uri,
            "tokenizer_config.json",
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
        )
    return found is not None


def load_context(uri: str, revision: str | None = None) -> int | None:
    """The number of tokens that the model at `uri` can see; None if it names no bound.

    Raises:
        BackEndError: There is no config at `uri`.
    """
    adapter = load_adapter(uri, revision)
    if adapter is not None:
        return load_context(*base_of(adapter))
    with explained(uri, "config.json"):
        return context(AutoConfig.from_pretrained(uri, revision=revision))


def context(config: PreTrainedConfig) -> int | None:
    """The number of tokens that a model with this config can see; None if it names no bound."""
    fields = config.get_text_config(decoder=True).to_dict()
    sizes = [fields[key] for key in CONTEXT_KEYS if isinstance(fields.get(key), int)]
    return sizes[0] if sizes else None


def _device(name: str, part: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackEndError(
            f'expected a device such as "auto", "cpu" or "cuda:1"; got "{name}"; '
            f"correct {part}.device"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackEndError(
            f'expected the device "{name}" of the recipe; torch sees {torch.cuda.device_count()} '
            f'CUDA devices; set {part}.device to "auto" or install a CUDA build of torch'
        )
    return device


@contextmanager
def explained(uri: str, expected: str) -> Iterator[None]:
    """Say what was `expected` at `uri`, and what came, instead of what transformers says.

    Raises:
        BackEndError: Whatever stands there cannot be loaded.
    """
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
