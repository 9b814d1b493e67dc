"""Whether a program wrote a model: config, finite weights, a tokenizer; one tensor at a time."""

import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open

from eva.backends.load import load_context, load_tokenizer
from eva.errors import BackEndError
from eva.jobs import Job

log = logging.getLogger(__name__)

EXPECTED = "expected a whole model in Hugging Face format (save_pretrained of model and tokenizer)"
NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "scheduler.bin"})
"""Files of trainers that look like weights; the first says which machine trained, not what."""


def make_sound(folder: Path, job: Job) -> None:
    """Check a model folder: config, finite weights, a tokenizer with a chat template.

    A program that saved no tokenizer used that of the start, which is then copied beside the
    weights. Files of trainers that would change the identity of the weights are removed.

    Raises:
        BackEndError: Something is missing or torn; says what.
    """
    if not any(folder.iterdir()):
        raise BackEndError(
            f"the learner's command ended well but wrote nothing to {{out}}, {folder}; {EXPECTED}"
        )
    for name in NO_WEIGHTS:
        (folder / name).unlink(missing_ok=True)
    try:
        load_context(str(folder))
    except BackEndError as error:
        raise BackEndError(
            f"what the learner's command wrote to {{out}} is no model ({error}); {EXPECTED}"
        ) from error
    _check_weights(folder)
    if not any((folder / name).exists() for name in ("tokenizer_config.json", "tokenizer.json")):
        log.info("learn: the command saved no tokenizer; that of the start is copied")
        load_tokenizer(job.start, job.revision).save_pretrained(folder)
    load_tokenizer(str(folder))


def _check_weights(folder: Path) -> None:
    indexes = sorted(folder.glob("*.index.json"))
    try:
        named = {name for path in indexes for name in _shards(path)}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                wild = [name for name in names if not file.get_tensor(name).isfinite().all()]
            if wild:
                raise BackEndError(
                    f"{wild[0]} in {path}, which the learner's command wrote, is not finite; lower "
                    "its learning rate (a changed recipe needs a new run folder)"
                )
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise BackEndError(
            f"the weights in {folder} cannot be read ({error}); {EXPECTED}"
        ) from error
    there = {path.name for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind)}
    missing = sorted(named - there)
    if missing or not there:
        came = f"{missing[0]} is missing" if missing else "there are no weights"
        raise BackEndError(f"{came} in {folder}, which the learner's command wrote; {EXPECTED}")


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_bytes())["weight_map"].values())
