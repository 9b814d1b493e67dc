"""The arguments of TRL's `DPOConfig`: which a recipe may give, and what eva gives otherwise."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue
from trl import DPOConfig  # type: ignore[attr-defined]  # exported lazily

from eva.errors import RecipeError
from eva.jobs import Job
from eva.recipe import nearest

REFUSED = {
    "output_dir": "eva says where",
    "seed": "eva gives every update its own",
    "data_seed": "eva gives every update its own",
    "use_cpu": "policy.device says it",
    "local_rank": "the launcher says it",
    "save_strategy": "save_steps alone says it",
    "save_only_model": "an update could not go on from such a snapshot",
    "resume_from_checkpoint": "eva goes on from the last snapshot by itself",
    "model_init_kwargs": "eva opens the model, in float32",
    "pad_token": "the tokenizer says it",
    "push_to_hub": "a checkpoint stays in the run directory",
    "load_best_model_at_end": "there is no evaluation inside an update",
    "eval_strategy": "there is no evaluation inside an update",
}
"""Arguments that a recipe may not give, and why."""


def check(args: Mapping[str, JsonValue]) -> None:
    """Refuse arguments that TRL does not know or that eva itself decides.

    Raises:
        RecipeError: Names the argument, and the nearest known one or the reason.
    """
    known = {field.name for field in dataclasses.fields(DPOConfig) if field.init} - set(REFUSED)
    for name in args:
        if name in REFUSED:
            raise RecipeError(f"learner.args.{name} cannot be given: {REFUSED[name]}")
        if name not in known:
            raise RecipeError(
                f"learner.args: trl.DPOConfig knows no {name!r}; {nearest(name, known)}"
            )


def config(job: Job, snapshots: Path, *, on_cpu: bool) -> DPOConfig:
    """TRL's arguments for a job.

    Beyond what `check` refuses, these differ from TRL's own defaults unless the recipe gives them:
    nothing is cut at 1024 tokens, a CPU computes in float32 and without gradient checkpointing,
    every step is logged, NaN is not hidden, nobody is reported to.

    Raises:
        RecipeError: TRL refuses a value.
    """
    ours: dict[str, JsonValue] = {
        "max_length": None,
        "bf16": None if "fp16" in job.args else not on_cpu,
        "gradient_checkpointing": not on_cpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_total_limit": 1,
    }
    fixed: dict[str, JsonValue] = {
        "output_dir": str(snapshots),
        "seed": job.seed,
        "use_cpu": on_cpu,
        "save_strategy": "steps" if "save_steps" in job.args else "no",
    }
    arguments = ours | job.args | fixed
    if "save_steps" not in arguments:
        arguments.pop("save_total_limit")
    try:
        return DPOConfig(**arguments)  # type: ignore[arg-type]  # checked by TRL itself
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"learner.args: trl.DPOConfig refuses them: {reason}") from error
