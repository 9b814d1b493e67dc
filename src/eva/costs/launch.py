"""How many processes a launcher starts, and whether they shard the weights, from its words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

PROCESSES = ("--nproc-per-node", "--nproc_per_node", "--num_processes", "--num-processes")
NODES = ("--nnodes", "--num_machines")


@dataclass(frozen=True)
class Launch:
    """The processes of an update."""

    processes: int = 1
    """How many."""
    is_sharded: bool = False
    """Whether each holds a part of the weights (FSDP2), or all of them."""
    unknown: str | None = None
    """What could not be found out, in words; then the numbers are a guess."""


def launched(command: Sequence[str], here: Path, gpus: int) -> Launch:
    """What a learner's `launch` starts.

    Args:
        command: Its words, e.g. ``accelerate launch --config_file fsdp2.yaml``.
        here: Where a relative config file lies: the working directory, for eva starts it there.
        gpus: How many GPUs there are; the guess where the command does not say.
    """
    if not command:
        return Launch()
    named = option(command, ("--config_file", "--config-file"))
    fields: dict[str, object] = {}
    unknown = None
    if named:
        path = here / named
        if path.is_file():
            read = yaml.safe_load(path.read_text("utf-8"))
            fields = read if isinstance(read, dict) else {}
        else:
            unknown = f"there is no {named} here; taken as shards over the {gpus} GPUs named"
    told = option(command, PROCESSES)
    listed = fields.get("num_processes", gpus)
    processes = int(told) if told and told.isdigit() else int(str(listed))
    nodes = option(command, NODES)
    if nodes and nodes.isdigit() and command[0] == "torchrun":
        processes *= int(nodes)
    shards = fields.get("distributed_type") == "FSDP" or "--use_fsdp" in command
    return Launch(max(1, processes), shards or unknown is not None, unknown)


def option(command: Sequence[str], names: Sequence[str]) -> str | None:
    """The value of an option that a command has, under one of its names; None where it has none."""
    for place, word in enumerate(command):
        name, _, value = word.partition("=")
        if name in names:
            return value or (command[place + 1] if place + 1 < len(command) else None)
    return None
