"""A tiny start, lessons for it, and programs that are learners."""

import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from eva.parts.learners import Command, Trl
from eva.parts.policies import HfPolicy
from eva.protocols import Learner
from eva.records import Checkpoint, Message, Prompt, Response, Rollout
from eva.trainers.command import make_learner
from tests.tiny import EOS, SPECIAL, WORDS, tiny_llama

SEED = 2**40 + 3
"""Longer than NumPy's old generators take."""
COPY = """
import shutil, sys
shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)
"""
"""A program that hands the start back as its result."""


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tiny_llama(tmp_path_factory.mktemp("start") / "model")
    return Checkpoint(uri=str(folder), id="start")


@pytest.fixture(scope="session")
def policy(start: Checkpoint) -> HfPolicy:
    return HfPolicy(model=start.uri, device="cpu", threads=1)


@pytest.fixture(scope="session")
def lessons() -> list[Rollout]:
    """Twelve groups of three answers of some words, none of them cut."""
    rng = np.random.default_rng(5)
    return [group(rng, (0.0, 1.0, 0.5)) for _ in range(12)]


def group(
    rng: np.random.Generator, rewards: Sequence[float | None], finish: str = "stop"
) -> Rollout:
    text = " ".join(rng.choice(WORDS, size=rng.integers(2, 6)))
    return Rollout(
        prompt=Prompt(messages=(Message(role="user", content=text),)),
        responses=tuple(answer(rng, finish) for _ in rewards),
        rewards=tuple(rewards),
        policy="start",
        round=0,
    )


def answer(rng: np.random.Generator, finish: str) -> Response:
    words = rng.integers(len(WORDS), size=rng.integers(2, 6)).tolist()
    tokens = (*(len(SPECIAL) + word for word in words), *([EOS] if finish == "stop" else []))
    text = " ".join(WORDS[word] for word in words)
    return Response.model_validate({"text": text, "tokens": tokens, "finish": finish})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "learn"
    folder.mkdir()
    return folder


@pytest.fixture
def learner_of(tmp_path: Path, policy: HfPolicy) -> Callable[..., Learner]:
    """The learner that runs a Python program with arguments."""

    def made(program: str, *words: str, env: dict[str, str] | None = None) -> Learner:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(program))
        run = (sys.executable, str(path), *words)
        return make_learner(Command(kind="command", run=run, env=env or {}), policy)

    return made


@pytest.fixture(scope="session")
def trl_learner(policy: HfPolicy) -> Callable[..., Learner]:
    """TRL's learner, small."""

    def made(launch: tuple[str, ...] = (), **args: object) -> Learner:
        small = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
        return make_learner(
            Trl.model_validate({"kind": "trl", "args": small | args, "launch": launch}), policy
        )

    return made
