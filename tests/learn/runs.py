"""What a learner left: its log and its weights, read and compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from eva.parts.learners import Dpo
from eva.records import Checkpoint

MakeStart = Callable[..., Checkpoint]
MakeConfig = Callable[..., Dpo]
Log = list[dict[str, float]]
SEED = 11
Learn = Callable[..., tuple[Checkpoint, Log]]


def read_log(out: Path) -> Log:
    return [json.loads(line) for line in (out / "log.jsonl").read_bytes().splitlines()]


def read_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(checkpoint.uri)
    return {name: weight.detach() for name, weight in model.named_parameters()}


def largest_difference(one: Checkpoint, other: Checkpoint) -> float:
    """Of all weights but GPT-2's attention biases.

    The bias of a key has a gradient of zero but for rounding, and AdamW divides it by its own size.
    """
    ours, theirs = read_weights(one), read_weights(other)
    ours = {name: weight for name, weight in ours.items() if "c_attn.bias" not in name}
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def file_bytes(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_alike(one: Log, other: Log) -> None:
    for ours, theirs in zip(one, other, strict=True):
        # In the first step policy and reference agree, and rounding alone decides who wins.
        first = {"accuracy": 0.0} if ours["step"] == 1 else {}
        assert ours | first == pytest.approx(theirs | first, rel=1e-4, abs=1e-5)


# ---------------------------------------------------------------- the slow formula


def assert_shards(*words: str) -> Any:
    """`accelerate launch` with these words shards by layers; its arguments."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    asked = [*words, "-m", "eva.learn", "job.json"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(asked))
    environment = prepare_multi_gpu_env(arguments)
    expected = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    }
    assert {name: environment[name] for name in expected} == expected
    return arguments
