"""TRL's stable `DPOTrainer` in a process of its own: ``python -m eva.trainers.trl JOB.json``.

It sees text: the chat template is applied by TRL, and ends every answer. Pairs with an answer that
was cut are not among those of the job, for the model would be taught to stop there.

The reference is the start, opened a second time: TRL's own choice for a missing one is the model
that a config was first saved from. Weights and the checkpoint are in float32; bfloat16 is a matter
of the matrix products alone.
"""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from datasets import Dataset
from pydantic import JsonValue
from trl import DPOTrainer  # type: ignore[attr-defined]  # exported lazily

from eva.backends.load import load_model, load_tokenizer, no_bars
from eva.errors import BackEndError
from eva.export import write_rows
from eva.jobs import Job, leave, told
from eva.trainers.trl_args import config

OUR_NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "rewards/margins": "margin",
}
"""TRL's metrics by the names that eva has for them (docs/metrics.md)."""


def main(path: Path) -> None:
    """Do the job that a file describes."""
    logging.basicConfig(level=logging.INFO)
    job = Job.model_validate_json(path.read_bytes())
    with told(Path(job.folder)):
        _learn(job)


def _learn(job: Job) -> None:
    on_cpu = job.device == "cpu" or not torch.cuda.is_available()
    snapshots = Path(job.folder) / "trl"
    args = config(job, snapshots, on_cpu=on_cpu)
    model, reference = (load_model(job.start, job.revision, torch.float32) for _ in range(2))
    trainer = DPOTrainer(
        model,
        ref_model=reference,
        args=args,
        train_dataset=_pairs(Path(job.pairs)),
        processing_class=load_tokenizer(job.start, job.revision),
    )
    trainer.train(resume_from_checkpoint=last_snapshot(snapshots))
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise BackEndError(
            "the weights are no longer finite after TRL's update; the start is untouched: lower "
            "learner.args.learning_rate, and see the losses in log.jsonl"
        )
    with no_bars():
        trainer.save_model(job.out)  # every process takes part, the main one writes
    if trainer.is_world_process_zero():
        # TRL may have given the tokenizer a padding token; the checkpoint keeps that of the start.
        load_tokenizer(job.start, job.revision).save_pretrained(job.out)
        rows = [_row(found) for found in trainer.state.log_history if "loss" in found]
        write_rows(Path(job.folder) / "log.jsonl", rows)
    trainer.accelerator.wait_for_everyone()


def _row(found: Mapping[str, float]) -> dict[str, JsonValue]:
    ours = {name: found[theirs] for theirs, name in OUR_NAMES.items() if theirs in found}
    return {"step": found["step"], **ours}


def _pairs(path: Path) -> Dataset:
    with path.open("rb") as file:
        rows = [json.loads(line) for line in file]
    columns = ("prompt", "chosen", "rejected")
    return Dataset.from_list([{name: row[name] for name in columns} for row in rows])


def last_snapshot(folder: Path) -> str | None:
    """TRL's last whole snapshot; its state is written last, so one without it was torn by a kill.

    Only snapshots of the same job are there: eva clears those of another.
    """
    found = {path: path.name.rpartition("-")[2] for path in folder.glob("checkpoint-*")}
    whole = [path for path, step in found.items() if step.isdigit() and _is_whole(path)]
    return str(max(whole, key=lambda path: int(found[path]))) if whole else None


def _is_whole(snapshot: Path) -> bool:
    try:
        json.loads((snapshot / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
