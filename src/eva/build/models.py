"""Language models: what opens a checkpoint as a policy, and what is only asked."""

from functools import partial
from pathlib import Path

import eva.toy
from eva.adapt import Asked
from eva.extras import extra
from eva.parts.policies import (
    HfPolicy,
    HttpPolicy,
    ModelPart,
    PolicyPart,
    SelfPolicy,
    ToyPolicy,
    VllmPolicy,
    WriterPart,
)
from eva.protocols import OpenPolicy
from eva.records import Checkpoint


def theta_0(part: PolicyPart) -> Checkpoint:
    """The checkpoint that the game starts from, or a model that is only asked."""
    if isinstance(part, ToyPolicy):
        return Checkpoint(uri=f"toy:{part.skill}", id=f"skill-{part.skill:.12g}")
    folder = model_folder(part.model)
    if not Path(folder).is_dir():
        return Checkpoint(uri=folder, id=f"{folder}@{part.revision or 'main'}")
    from eva.checkpoints import fingerprint

    return Checkpoint(uri=folder, id=fingerprint(Path(folder)))


def model_folder(model: str) -> str:
    """The folder or hub id of a model; "playground" is the one that ships with eva."""
    if model != "playground":
        return str(Path(model).resolve()) if Path(model).is_dir() else model
    from eva.playground.sets import theta_0_path

    return str(theta_0_path())


def open_policy(part: PolicyPart, cache: Path | None) -> OpenPolicy:
    """What opens a checkpoint as a policy; paid answers are kept in the folder `cache`."""
    match part:
        case ToyPolicy():
            return eva.toy.open_policy
        case HttpPolicy():
            with extra("http", "policy kind 'http'"):
                from eva.backends import http
            return partial(http.open_policy, config=part, cache=cache)
        case VllmPolicy():
            with extra("vllm", "policy kind 'vllm'"):
                from eva.backends import vllm
            return partial(vllm.open_policy, config=part)
        case HfPolicy():
            with extra("hf", "policy kind 'hf'"):
                import torch

                from eva.backends import hf
            if part.threads is not None:
                torch.set_num_threads(part.threads)
            return partial(hf.open_policy, config=part)


def asked(part: ModelPart, cache: Path | None, place: str) -> Asked:
    """A model that writes or judges; it is opened when it is first asked.

    Paid answers are kept by its `place` in the recipe and by what it is, so two models of one name
    are not taken for each other.
    """
    name = part.name or part.model if isinstance(part, HttpPolicy) else part.model
    revision = f"@{part.revision}" if part.revision else ""
    # Weights are read for an identity where answers are kept by them, and nowhere else.
    if isinstance(part, HttpPolicy):
        start = theta_0(part) if part.serve else Checkpoint(uri=part.model, id=name)
    else:
        start = Checkpoint(uri=model_folder(part.model), id=name)
    checkpoint = Checkpoint(uri=start.uri, id=f"{place} {start.id}")
    return Asked(f"{part.kind} {name}{revision}", open_policy(part, cache), checkpoint)


def writer(part: WriterPart, cache: Path | None) -> Asked | None:
    """Who writes prompts; None is the current policy itself."""
    return None if isinstance(part, SelfPolicy) else asked(part, cache, "creator.evolve.by")
