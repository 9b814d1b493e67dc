"""Tiny starting checkpoints, and rollouts that they could have made."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eva.learn.trainer import make_learner
from eva.parts.learners import OwnOffline
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Message, Prompt, Response, Rollout
from tests.learn.rounds import Opener
from tests.learn.runs import SEED, Log, read_log
from tests.tiny import (
    EOS,
    SPECIAL,
    WORDS,
    tiny_gemma2,
    tiny_gpt2,
    tiny_llama,
    tiny_qwen3,
    tiny_tokenizer,
)

TINY = {"llama": tiny_llama, "qwen3": tiny_qwen3, "gemma2": tiny_gemma2, "gpt2": tiny_gpt2}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Test processes run side by side; OpenMP threads that wait for a core spin, and all crawl."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def make_start(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Writes theta_0 of one architecture; only GPT-2 has dropout."""

    def start(kind: str = "llama", dropout: float = 0.0) -> Checkpoint:
        folder = TINY[kind](tmp_path / f"start-{kind}-{dropout}")
        if kind == "gpt2":
            config = folder / "config.json"
            fields = json.loads(config.read_bytes()) | dict.fromkeys(DROPOUTS, dropout)
            config.write_text(json.dumps(fields))
        return Checkpoint(uri=str(folder), id="start")

    return start


@pytest.fixture(scope="session")
def lessons() -> list[Rollout]:
    """Thirteen groups of three answers of many lengths, sampled tokens known, some cut."""
    rng = np.random.default_rng(3)
    return [_rollout(rng) for _ in range(13)]


def _rollout(rng: np.random.Generator) -> Rollout:
    text = " ".join(rng.choice(WORDS, size=rng.integers(1, 9)))
    answers = tuple(_answer(rng) for _ in range(3))
    rewards = tuple(float(r) for r in rng.permutation(3))
    return made_rollout(text, answers, rewards)


def _answer(rng: np.random.Generator) -> Response:
    words = rng.integers(len(WORDS), size=rng.integers(1, 8))
    text = " ".join(WORDS[word] for word in words)
    tokens = tuple(len(SPECIAL) + int(word) for word in words)
    if rng.random() < 0.3:
        return Response(text=text, tokens=tokens, finish="length")
    return Response(text=text, tokens=(*tokens, EOS))


def made_rollout(
    text: str, responses: Sequence[Response], rewards: Sequence[float | None]
) -> Rollout:
    return Rollout(
        prompt=Prompt(messages=(Message(role="user", content=text),)),
        responses=tuple(responses),
        rewards=tuple(rewards),
        policy="start",
        round=0,
    )


@pytest.fixture(scope="session")
def make_rollout() -> Callable[..., Rollout]:
    return made_rollout


@pytest.fixture(scope="session")
def make_config() -> Callable[..., OwnOffline]:
    """A learner that makes a few small steps; any choice can be given."""

    def config(**choices: object) -> OwnOffline:
        small = {"kind": "dpo", "beta": 0.3, "lr": 1e-3, "epochs": None, "steps": 3, "batch": 5}
        return TypeAdapter(OwnOffline).validate_python(small | choices)

    return config


@pytest.fixture
def learn(tmp_path: Path, lessons: list[Rollout]) -> Callable[..., tuple[Checkpoint, Log]]:
    """Runs a learner into an empty folder: the checkpoint and the log."""

    def learnt(
        start: Checkpoint,
        config: OwnOffline,
        seed: int = SEED,
        rollouts: Sequence[Rollout] = lessons,
        policy: HfPolicy | None = None,
    ) -> tuple[Checkpoint, Log]:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        checkpoint = make_learner(config, policy)(start, rollouts, out=out, seed=seed)
        return checkpoint, read_log(out)

    return learnt


@pytest.fixture
def opener(make_start: Callable[..., Checkpoint], tmp_path: Path) -> Opener:
    return Opener(make_start("llama"), tmp_path)
