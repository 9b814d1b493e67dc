"""Engines of vLLM that run below a process, and what is asked of them."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from eva.parts.policies import VllmPolicy
from eva.records import Checkpoint, Message, Prompt

WITH_VLLM = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
"""The marks of tests that load vLLM; what it warns of is not ours to mend."""
LENGTHS = (1, 7, 3, 12, 3, 30)


def config(folder: Path, **choices: object) -> VllmPolicy:
    fields = {"kind": "vllm", "model": str(folder), "eager": True} | choices
    return VllmPolicy.model_validate(fields)


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(uri=str(folder), id=folder.name)


def prompt(words: int, start: int = 0) -> Prompt:
    text = " ".join(f"w{(start + 5 * i) % 32}" for i in range(words))
    return Prompt(messages=(Message(role="user", content=text),))


def prompts() -> list[Prompt]:
    """Of unequal lengths, some of the same."""
    return [prompt(words, start) for start in range(3) for words in LENGTHS]


def small_adapter(base: Path, folder: Path) -> Path:
    """A random LoRA adapter of a model, which changes what it answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shape = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), shape).save_pretrained(folder)
    return folder


def engines(of: int | None = None) -> list[psutil.Process]:
    """The living processes of vLLM below a process; below this one if none is named."""
    found = psutil.Process(of).children(recursive=True)
    return [one for one in found if _name(one).startswith("VLLM::")]


def _name(process: psutil.Process) -> str:
    try:
        return process.name() if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.NoSuchProcess:
        return ""


def memory() -> int:
    """Bytes that this process and all below it hold."""
    mine = psutil.Process()
    return sum(one.memory_info().rss for one in [mine, *mine.children(recursive=True)])


def waited(until: Callable[[], object], seconds: float = 120.0) -> bool:
    """Whether something became true in time."""
    end = time.monotonic() + seconds
    while not (found := bool(until())) and time.monotonic() < end:
        time.sleep(0.05)
    return found
