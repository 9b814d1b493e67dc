"""Models in Hugging Face format: read whole or refused in one sentence, written to last.

With low-rank adapters (PEFT's LoRA) the model is frozen and only they train. They sit inside the
model's own layers, so whatever asks the model asks the adapters too. A checkpoint is then the
adapter alone, with the name of the model that it changes, or that model with the adapter merged in.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftConfig, inject_adapter_in_model, load_peft_weights
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import JsonValue
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from eva import seeds
from eva.backends.load import base_of, load_adapter, load_model, load_tokenizer, no_bars
from eva.checkpoints import fingerprint
from eva.errors import BackEndError
from eva.parts.learners import Lora
from eva.store import write_json, write_whole

NAME = "default"
"""PEFT keeps several adapters apart by name; there is only one here."""
PREFIX = "base_model.model."
"""What the names of weights begin with in the file of an adapter."""
FREE = {"base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "task_type"}
FREE |= {"peft_version", "auto_mapping", "init_lora_weights", "target_modules", "fan_in_fan_out"}
"""Fields of an adapter's config that may differ from the recipe's: names, how it was trained
before, and what the shapes and names of its weights tell better. All others decide what it
computes."""


@dataclass(frozen=True)
class Weights:
    """A causal language model and what reads and writes its text."""

    model: PreTrainedModel
    """In float32, on the CPU: the master weights, so that small updates are not rounded away."""
    tokenizer: PreTrainedTokenizerBase
    """With its chat template."""
    adapter: "Adapter | None" = None
    """What is trained; None for all weights."""


@dataclass(frozen=True)
class Adapter:
    """The low-rank adapter inside a model."""

    config: LoraConfig
    """PEFT's description; it names the base."""
    merge: bool
    """Whether a checkpoint is the whole model."""


def opened(
    uri: str, revision: str | None = None, lora: Lora | None = None, *, seed: int = 0
) -> Weights:
    """The model and tokenizer in a folder or under a hub id.

    With `lora`, a model gets a fresh adapter, which changes nothing before the first step, and an
    adapter goes on: its base is loaded with it. Without, an adapter is merged and all weights
    train.

    Args:
        uri: Folder or hub id.
        revision: Branch, tag or commit of a hub id.
        lora: The adapter to train instead of all weights.
        seed: A fresh adapter draws from it, and from no other generator.

    Raises:
        BackEndError: There is no such model, some of its weights are missing, or an adapter is not
            the one that the recipe describes.
    """
    if lora is None:
        whole = load_model(uri, revision, torch.float32)
        return Weights(whole, load_tokenizer(uri, revision))
    known = load_adapter(uri, revision)
    base = (uri, revision) if known is None else base_of(known)
    model = load_model(*base, torch.float32)
    config = _config(model, lora, *base)
    _check_targets(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.child(seed, "lora"))
        inject_adapter_in_model(config, model, NAME)
    if known is not None:
        _check_agrees(known, config, uri)
        _fill(model, load_peft_weights(uri, device="cpu", revision=revision), uri)
    model.eval()  # type: ignore[no-untyped-call]  # theirs
    return Weights(model, load_tokenizer(uri, revision), Adapter(config, lora.merge))


@contextmanager
def without_adapter(model: PreTrainedModel) -> Iterator[None]:
    """The model as it was before its adapter, while inside."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


def is_base_of(weights: Weights, uri: str, revision: str | None) -> bool:
    """Whether a model without its adapter is the one at `uri`."""
    if weights.adapter is None:
        return False
    base = (str(Path(uri).resolve()) if Path(uri).is_dir() else uri, revision)
    return base_of(weights.adapter.config) == base


def _config(model: PreTrainedModel, lora: Lora, base: str, revision: str | None) -> LoraConfig:
    """PEFT's description of the recipe's adapter."""
    return LoraConfig(
        r=lora.rank,
        # Theirs is an int by its declaration; any number works, and 2.5 / r is as good a scale.
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        # GPT-2 keeps its matrices transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
        # A folder by its full path: the adapter lies elsewhere, and is read from anywhere.
        base_model_name_or_path=str(Path(base).resolve()) if Path(base).is_dir() else base,
        revision=revision,
    )


def _check_targets(model: PreTrainedModel, config: LoraConfig) -> None:
    """Refuse names that no linear layer has, and layers that share their matrix with another."""
    if isinstance(config.target_modules, str):
        return
    kinds = (nn.Linear, Conv1D)
    linear = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    embeddings = model.get_input_embeddings().weight
    tied = {name for name in linear if model.get_submodule(name).weight is embeddings}
    known = sorted({name.rpartition(".")[2] for name in linear - tied})
    for target in config.target_modules or ():
        hit = {name for name in linear - tied if f".{name}".endswith(f".{target}")}
        if not hit:
            raise BackEndError(
                f'learner.lora.targets names "{target}", expected linear layers of '
                f"{type(model).__name__} that share no weights: {', '.join(known)}"
            )


def _check_agrees(known: PeftConfig, config: LoraConfig, uri: str) -> None:
    """Refuse an adapter that the recipe does not describe."""
    found, expected = _fields(known), _fields(config)
    names = sorted(found.keys() | expected.keys())
    differ = [name for name in names if found.get(name) != expected.get(name)]
    if differ:
        told = ", ".join(f"{name} {found.get(name)} not {expected.get(name)}" for name in differ)
        raise BackEndError(
            f"the adapter {uri} is not the one that learner.lora describes ({told}); change the "
            "recipe, or start from a whole model"
        )


def _fields(config: PeftConfig) -> dict[str, JsonValue]:
    """What decides which function an adapter is."""
    return {name: value for name, value in _plain(config).items() if name not in FREE}


def _plain(config: PeftConfig) -> dict[str, JsonValue]:
    """A config as it is written, always in the same order."""
    fields = {
        name: sorted(value) if isinstance(value, set | list) else value
        for name, value in config.to_dict().items()
    }
    plain: dict[str, JsonValue] = json.loads(json.dumps(fields, sort_keys=True))
    return plain


def _fill(model: PreTrainedModel, tensors: Mapping[str, Tensor], uri: str) -> None:
    """Put the weights of an adapter into a model that has a fresh one of the same config."""
    expected = {name for name, _ in model.named_parameters() if _is_adapters(name)}
    given = {_inside(name): tensor for name, tensor in tensors.items()}
    if expected != given.keys():
        first = min(expected ^ given.keys())
        raise BackEndError(
            f"expected the adapter of {type(model).__name__} that learner.lora.targets describes; "
            f"{uri} lacks or adds {len(expected ^ given.keys())} tensors, the first is {first}; "
            "change the recipe, or start from a whole model"
        )
    with torch.no_grad():
        for name, tensor in given.items():
            model.get_parameter(name).copy_(tensor)


def _is_adapters(name: str) -> bool:
    return name.endswith((f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"))


def _inside(name: str) -> str:
    """The name inside the model of a weight in the file of an adapter."""
    return name.removeprefix(PREFIX).removesuffix("weight") + f"{NAME}.weight"


def _outside(name: str) -> str:
    """The name in the file of an adapter of a weight inside the model."""
    return PREFIX + name.removesuffix(f"{NAME}.weight") + "weight"


def saved(weights: Weights, accelerator: Accelerator, wrapped: nn.Module, folder: Path) -> None:
    """Write a checkpoint in Hugging Face format, float32, with tokenizer and generation config.

    The whole model; or of one with an adapter, the adapter alone. If the recipe merges, the whole
    model with the adapter in its weights, and the adapter alone in ``adapter/`` beside `folder`.
    The weights in training stay as they are.

    All processes call it, for the weights may be sharded over them; the main one writes. Whoever
    records the checkpoint syncs it to the disk first (`eva.store.settle`).

    Args:
        weights: The model and its tokenizer.
        accelerator: Who holds the processes together.
        wrapped: The model as it is trained, whose weights are those to write.
        folder: Where to.
    """
    # Its declared result is that of every way to shard; none but the main process has one.
    whole: Any = accelerator.get_state_dict(wrapped) or {}
    if accelerator.is_main_process:  # pragma: no branch - the others wait
        named = {name.removeprefix("model."): value for name, value in whole.items()}
        adapter = weights.adapter
        if adapter is None or adapter.merge:
            with no_bars():
                merged = named if adapter is None else _merged(weights.model, named)
                weights.model.save_pretrained(folder, state_dict=merged)
        if adapter is not None:
            own = folder.parent / "adapter" if adapter.merge else folder
            _write_adapter(adapter.config, named, own)
        weights.tokenizer.save_pretrained(folder)
    accelerator.wait_for_everyone()


def _merged(model: PreTrainedModel, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model without its adapter, ``W + alpha / r B A``; one copy, on the CPU."""
    merged = {}
    for name, tensor in named.items():
        place, is_adapted, kind = name.rpartition(".base_layer.")
        if not is_adapted:
            if not _is_adapters(name):
                merged[name] = tensor
            continue
        merged[f"{place}.{kind}"] = tensor
        if kind == "weight":
            layer = model.get_submodule(place)
            assert isinstance(layer, LoraLayer)
            a, b = (named[f"{place}.lora_{side}.{NAME}.weight"] for side in "AB")
            delta = (b @ a) * layer.scaling[NAME]
            delta = delta.T if isinstance(layer.get_base_layer(), Conv1D) else delta
            merged[f"{place}.{kind}"] = (tensor + delta).cpu()
    return merged


def _write_adapter(config: LoraConfig, named: Mapping[str, Tensor], folder: Path) -> None:
    """Write an adapter as PEFT does, and in the file of its weights what they belong to.

    The identity of a checkpoint is a digest of the file of its weights (`eva.checkpoints`), so that
    file says which base it changes, and how strongly. One entry: the file keeps no order of them.
    """
    tensors = {
        _outside(name): tensor.detach().cpu().contiguous()
        for name, tensor in named.items()
        if _is_adapters(name)
    }
    base, revision = base_of(config)
    origin = fingerprint(Path(base)) if Path(base).is_dir() else f"{base}@{revision or 'main'}"
    changes = {"changes": f"{origin} by {config.lora_alpha:g} / {config.r}"}
    write_whole(
        folder / "adapter_model.safetensors", [safetensors.torch.save(tensors, metadata=changes)]
    )
    write_json(folder / "adapter_config.json", _plain(config) | {"inference_mode": True})


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Keep only the input of each layer, and compute its activations again in the backward pass."""
    with warnings.catch_warnings():
        # transformers 5.23 renames this method and 5.16 has no other one; take the new name,
        # activation_checkpointing_enable, once the extra `hf` asks for 5.23.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]  # theirs
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
