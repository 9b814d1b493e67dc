"""Learners that are programs: files in, a checkpoint in Hugging Face format out.

Three kinds share one way: the user's own command, TRL's trainer, and eva's own learners started
by a launcher. Below the folder of the update eva writes ``pairs.jsonl``, ``rollouts.jsonl`` and
``job.json``; what the program prints is in ``command.log``. The new model is written into
``checkpoint.part`` and renamed to ``checkpoint`` once the program has ended well and the model was
found sound, so that what a killed program left is never taken for a model.
"""

import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from eva import jobs
from eva.checkpoints import fingerprint
from eva.errors import BackEndError, RecipeError
from eva.export import Form, pair_rows, write_rows
from eva.jobs import LAUNCH, Counts, Job, OwnJob
from eva.pairs import best_worst_pairs
from eva.parts.learners import Command, OwnOffline, Trl
from eva.parts.policies import LanguageModel
from eva.protocols import Learner
from eva.recipe import nearest
from eva.records import Checkpoint, Pair, Record, Rollout
from eva.store import read_records, settle, write_records, write_whole
from eva.trainers.processes import alone, program, ran
from eva.trainers.sound import make_sound

log = logging.getLogger(__name__)

NAMES = ("start", "pairs", "rollouts", "out", "seed", "folder", "job")
"""What can stand in braces in a command; EVA_START, EVA_PAIRS, ... hold the same."""
PLACE = re.compile(r"\$?\{([a-z_]+)\}")
"""A placeholder; with a dollar before it, it is the shell's."""
SNAPSHOTS = "trl"
"""Where TRL keeps its snapshots, in the folder of the update."""


def make_learner(part: Command | Trl | OwnOffline, policy: LanguageModel) -> Learner:
    """The learner of a part that runs outside of this process.

    Raises:
        RecipeError: A placeholder, a program or an argument is not known, or TRL is missing.
    """
    match part:
        case Command():
            return _command(part, policy)
        case Trl():
            return _trl(part, policy)
        case _:
            return _launched(part, policy)


def _command(part: Command, policy: LanguageModel) -> Learner:
    for name in (name for word in part.run for name in _places(word)):
        if name not in NAMES:
            raise RecipeError(
                f"learner.run: unknown placeholder {{{name}}}; {nearest(name, NAMES)}"
            )
    name, *words = part.run
    found = program(name, "learner.run", near_python=False)

    def learner(
        start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int
    ) -> Checkpoint:
        if (Path(start.uri) / "adapter_config.json").exists():
            raise BackEndError(
                f"the start {start.uri} is an adapter; learner kind 'command' gives its program a "
                "whole model: merge it into one first"
            )
        job, pairs = _job(start, lessons, out=out, seed=seed, policy=policy)
        job = job.model_copy(update={"command": part.run})
        values = _values(job)
        command = [found, *(_filled(word, values) for word in words)]
        env = {f"EVA_{name.upper()}": value for name, value in values.items()} | part.env
        return _learnt(start, job, pairs=pairs, lessons=lessons, command=command, env=env)

    return learner


def _trl(part: Trl, policy: LanguageModel) -> Learner:
    """TRL's stable `DPOTrainer`.

    It gets text and tokenises it again, and the chat template ends every answer, also one that was
    cut at the token limit. So pairs with a cut response are left out, and counted.
    """
    if find_spec("trl") is None:
        raise RecipeError("learner kind 'trl' needs TRL: pip install 'eva-rlhf[trl]'")
    from eva.trainers.trl_args import check

    check(part.args)
    command = [*_launcher(part.launch), "-m", "eva.trainers.trl"]

    def learner(
        start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int
    ) -> Checkpoint:
        job, pairs = _job(start, lessons, out=out, seed=seed, policy=policy)
        whole = [pair for pair in pairs if not _is_cut(pair)]
        if len(whole) < len(pairs):
            left_out = f"{len(pairs) - len(whole)} of {len(pairs)} pairs have a cut response"
            log.warning("learn: %s, which TRL would teach to end there; left out", left_out)
            if not whole:
                raise BackEndError(
                    f"{left_out}, so nothing is left for TRL, which would teach them to end there; "
                    "raise sampling.max_tokens in a new run, or take a learner of eva's own"
                )
        counts = job.counts.model_copy(update={"pairs": len(whole)})
        asked = {"command": part.launch, "counts": counts, "args": part.args}
        job = job.model_copy(update=asked)
        order = [*command, _values(job)["job"]]
        env = {"HF_HUB_DISABLE_TELEMETRY": "1"} | _threads(policy)
        if not part.launch:  # transformers' trainer would spread one process over all devices
            env |= _one_device(policy.device)
        learnt = _learnt(start, job, pairs=whole, lessons=lessons, command=order, env=env)
        shutil.rmtree(Path(job.folder) / SNAPSHOTS, ignore_errors=True)
        return learnt

    return learner


def _launched(part: OwnOffline, policy: LanguageModel) -> Learner:
    """One of eva's own learners, in the processes that `part.launch` starts.

    The folder of the update is the learner's, as in this process; the order, the log and what comes
    back lie in ``launch/`` below it.
    """
    command = [*_launcher(part.launch), "-m", "eva.learn"]

    def learner(
        start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int
    ) -> Checkpoint:
        folder = out.resolve() / LAUNCH
        result, rollouts = folder / "result.jsonl", folder / "rollouts.jsonl"
        job = OwnJob(
            learner=part,
            policy=policy,
            start=start,
            lessons=jobs.lessons_digest(lessons),
            rollouts=str(rollouts),
            out=str(out.resolve()),
            seed=seed,
            result=str(result),
        )
        with alone(folder):
            if result.exists() and _is_standing(job, folder):
                (known,) = read_records(result, Checkpoint)
                if Path(known.uri).is_dir() and fingerprint(Path(known.uri)) == known.id:
                    return known
            result.unlink(missing_ok=True)
            write_records(rollouts, lessons)
            _write_job(job, folder)
            _run([*command, str(folder / "job.json")], folder, _threads(policy))
        if not result.exists():
            raise BackEndError(
                f"the launcher {' '.join(part.launch)} ended well, but no process of it learnt; "
                f"see {folder / 'command.log'}, and whether it starts `-m eva.learn`"
            )
        return read_records(result, Checkpoint)[0]

    return learner


# ---------------------------------------------------------------- the order


def _job(
    start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int, policy: LanguageModel
) -> tuple[Job, list[Pair]]:
    folder = out.resolve()
    found = best_worst_pairs(lessons)
    cut = sum(_is_cut(pair) for pair in found.pairs)
    counts = Counts(pairs=len(found.pairs), ties=found.ties, missing=found.missing, cut=cut)
    job = Job(
        command=(),
        start=start.uri,
        start_id=start.id,
        revision=policy.revision if policy.model == start.uri else None,
        reference=start.uri,
        pairs=str(folder / "pairs.jsonl"),
        rollouts=str(folder / "rollouts.jsonl"),
        out=str(folder / "checkpoint.part"),
        folder=str(folder),
        seed=seed % 2**31,  # NumPy's and torch's older generators take no more
        lessons=jobs.lessons_digest(lessons),
        counts=counts,
        device=policy.device,
    )
    return job, found.pairs


def _is_cut(pair: Pair) -> bool:
    return "length" in (pair.chosen.finish, pair.rejected.finish)


def _values(job: Job) -> dict[str, str]:
    """What the placeholders stand for."""
    fields = job.model_dump() | {"job": str(Path(job.folder) / "job.json")}
    return {name: str(fields[name]) for name in NAMES}


def _places(word: str) -> list[str]:
    return [found[1] for found in PLACE.finditer(word) if not found[0].startswith("$")]


def _filled(word: str, values: Mapping[str, str]) -> str:
    return PLACE.sub(lambda m: m[0] if m[0].startswith("$") else values[m[1]], word)


def _launcher(launch: Sequence[str]) -> list[str]:
    if not launch:
        return [sys.executable]
    return [program(launch[0], "learner.launch", near_python=True), *launch[1:]]


def _threads(policy: LanguageModel) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(policy.threads)} if policy.threads else {}


def _one_device(device: str) -> dict[str, str]:
    """Shows one CUDA device to a program: that of the policy, the first if it names none."""
    number = int(device.partition(":")[2] or 0)
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return {"CUDA_VISIBLE_DEVICES": str(number)}
    names = shown.split(",") if shown else []
    if device.startswith("cuda") and number >= len(names):
        raise BackEndError(
            f"policy.device is {device}, and CUDA_VISIBLE_DEVICES={shown!r} shows {len(names)} "
            "devices; name one of them"
        )
    return {"CUDA_VISIBLE_DEVICES": names[number] if number < len(names) else ""}


# ---------------------------------------------------------------- the update


def _learnt(
    start: Checkpoint,
    job: Job,
    *,
    pairs: Sequence[Pair],
    lessons: Sequence[Rollout],
    command: Sequence[str],
    env: Mapping[str, str],
) -> Checkpoint:
    """The checkpoint that a program makes; without pairs nothing is run, and it is the start."""
    log.info("learn: %s", job.counts.model_dump())
    folder, part = Path(job.folder), Path(job.out)
    whole = folder / "checkpoint"
    with alone(folder):
        if not _is_standing(job, folder):
            for left in (part, whole, folder / SNAPSHOTS):
                shutil.rmtree(left, ignore_errors=True)
        if not whole.exists():
            write_rows(Path(job.pairs), pair_rows(pairs, Form.trl))
            write_records(Path(job.rollouts), lessons)
            _write_job(job, folder)
            if not pairs:
                log.info("learn: no pairs: the command is not run, the start is the checkpoint")
                return start
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _run(command, folder, env)
            make_sound(part, job)
            settle(part)
            part.replace(whole)
    return Checkpoint(uri=str(whole), id=fingerprint(whole))


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
    """Run a program; an error that it left in a file says more than the end of its log."""
    path = folder / "command.log"
    jobs.forget_errors(folder)
    try:
        ran(command, log=path, env=env)
    except BackEndError as error:
        told = jobs.first_error(folder)
        if told is None:
            raise
        raise type(told)(f"{told} (its log: {path})") from error


def _is_standing(job: Record, folder: Path) -> bool:
    """Whether what lies in the folder was left by an earlier attempt at this very job."""
    path = folder / "job.json"
    return path.exists() and path.read_bytes() == _text(job)


def _write_job(job: Record, folder: Path) -> None:
    write_whole(folder / "job.json", [_text(job)])


def _text(job: Record) -> bytes:
    return job.model_dump_json(indent=1).encode() + b"\n"
