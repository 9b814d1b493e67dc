"""What the learners of bench/learn.py are given: models, pairs of token ids, prompts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, Gemma2Config, LlamaConfig, PreTrainedConfig

from eva import seeds
from eva.backends.hf import open_policy
from eva.learn.batches import TokenGroup
from eva.learn.objectives import objective
from eva.learn.solver import token_groups
from eva.parts.learners import Dpo
from eva.parts.policies import HfPolicy
from eva.parts.rewards import PlaygroundReward
from eva.playground.sets import prompts, theta_0_path
from eva.playground.verify import make_reward
from eva.records import Checkpoint, Message, Prompt, Rollout, Sampling
from sampler import SHAPE, save_model

# transformers types these in part, which is worse for mypy than not at all.
TOKENIZER: Any = AutoTokenizer

SEED = 20261121
"""Names every draw."""
SPECIAL = 4
"""Token ids below this one are no words of the random models."""
SHORTEST, LONGEST = 16, 256
"""Bounds of the lengths of synthetic prompts and responses, in tokens."""
MEDIAN, SPREAD = 64.0, 0.7
"""Of the log-normal distribution that they are drawn from: exp of its mean, and its deviation."""


@dataclass(frozen=True, kw_only=True)
class Offline:
    """DPO on pairs: how many there are and how they are passed through."""

    batch: int
    """Pairs in an optimiser step."""
    steps: int
    """Optimiser steps."""
    splits: tuple[int, ...]
    """Pairs that TRL may take at once; each divides `batch`."""
    best: int
    """The one with which it is fastest, by `--tune`."""
    precompute: bool = False
    """Whether TRL is fastest with the reference computed before the first step."""
    turns: int
    """Runs of each arm that are reported."""
    usual: int = 1
    """Runs of TRL as it is mostly called."""


@dataclass(frozen=True, kw_only=True)
class Online:
    """RLOO on prompts: how much is sampled."""

    prompts: int
    """Prompts in a mini-batch, each answered 8 times."""
    steps: int
    """Mini-batches."""
    max_tokens: int
    """Bound on a response."""
    words: tuple[int, int]
    """Fewest and most words of a synthetic prompt."""
    splits: tuple[int, ...]
    """Responses that TRL may take at once; each divides 8 `prompts`."""
    best: int
    """The one with which it is fastest, by `--tune`."""
    turns: int
    """Runs of each arm that are reported."""
    usual: int = 1
    """Runs of TRL as it is mostly called."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and its loads."""

    name: str
    config: PreTrainedConfig | None
    """The shape of a random model; None for the playground's theta_0."""
    pairs: int
    """Pairs to learn from; 0 for as many as the rollouts of the playground make."""
    offline: Offline
    online: Online | None = None


def cases() -> list[Case]:
    """The playground, and two architectures of 50 M parameters under two vocabularies."""
    deep: dict[str, Any] = SHAPE | {"num_hidden_layers": 16}
    gemma: dict[str, Any] = SHAPE | {"num_hidden_layers": 13, "intermediate_size": 2048}
    wide: dict[str, Any] = {
        "vocab_size": 256000,
        "num_hidden_layers": 8,
        "tie_word_embeddings": True,
    }
    small = Offline(batch=64, steps=6, splits=(16, 32, 64), best=64, turns=9, usual=9)
    large = Offline(batch=4, steps=1, splits=(1, 2, 4), best=2, precompute=True, turns=2)
    wider = Offline(batch=2, steps=1, splits=(1, 2), best=2, precompute=True, turns=2)
    online = Online(
        prompts=32, steps=4, max_tokens=11, words=(0, 0), splits=(64, 256), best=256, turns=7
    )
    slow = Online(
        prompts=4, steps=1, max_tokens=24, words=(14, 62), splits=(8, 32), best=8, turns=3
    )
    llama, gemma2 = LlamaConfig(**deep), Gemma2Config(**gemma, query_pre_attn_scalar=64)
    llama_wide = LlamaConfig(**(deep | wide))
    gemma2_wide = Gemma2Config(**(gemma | wide), query_pre_attn_scalar=64)
    return [
        Case(name="playground", config=None, pairs=0, offline=small, online=online),
        Case(name="Llama, 32k", config=llama, pairs=4, offline=large, online=slow),
        Case(name="Gemma 2, 32k", config=gemma2, pairs=4, offline=large),
        Case(name="Llama, 256k", config=llama_wide, pairs=2, offline=wider),
        Case(name="Gemma 2, 256k", config=gemma2_wide, pairs=2, offline=wider),
    ]


def made(case: Case, folder: Path) -> Path:
    """The model and tokenizer of a case, as a folder; made where they are not there."""
    if case.config is None:
        return theta_0_path()
    path = folder / case.name.replace(", ", "-").replace(" ", "")
    if not path.exists():
        path.mkdir(parents=True)
        save_model(case.config, path)
    return path


def pairs(case: Case) -> list[TokenGroup]:
    """What DPO learns from: prompts with a chosen and a rejected response, as token ids."""
    if case.config is None:
        return _playground_pairs()
    rng = seeds.rng(SEED, "learn", "pairs")
    vocabulary = case.config.vocab_size
    return [_pair(rng, vocabulary) for _ in range(case.pairs)]


def _pair(rng: np.random.Generator, vocabulary: int) -> TokenGroup:
    drawn = np.exp(rng.normal(np.log(MEDIAN), SPREAD, 3))
    prompt, *answers = (
        rng.integers(SPECIAL, vocabulary, int(length)).tolist()
        for length in drawn.clip(SHORTEST, LONGEST)
    )
    return TokenGroup(prompt=prompt, responses=tuple(answers), signals=(1.0, 0.0))


def _playground_pairs() -> list[TokenGroup]:
    """Best against worst of 8 responses of theta_0 to each of 256 prompts."""
    start = theta_0()
    asked = prompts("x0", 256, SEED)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=11)
    config = HfPolicy(model=start.uri, dtype="float32", device="cpu")
    with open_policy(start, config) as policy:
        answers = policy(asked, 8, sampling=sampling, seed=SEED)
    rewards_P_G = make_reward(PlaygroundReward(kind="playground"))(asked, answers)
    rollouts = [
        Rollout(
            prompt=prompt,
            responses=tuple(group),
            rewards=tuple(rewards.tolist()),
            policy=start.id,
            round=0,
        )
        for prompt, group, rewards in zip(asked, answers, rewards_P_G, strict=True)
    ]
    taught = objective(Dpo(kind="dpo"), 1).taught(rollouts)
    return token_groups(taught.lessons, TOKENIZER.from_pretrained(start.uri))


def theta_0() -> Checkpoint:
    """The playground's first policy."""
    return Checkpoint(uri=str(theta_0_path()), id="theta_0")


def asked(case: Case, online: Online) -> list[Prompt]:
    """What RLOO samples answers to; all mini-batches one after the other."""
    count = online.prompts * online.steps
    if case.config is None:
        return prompts("x0", count, SEED)
    rng = seeds.rng(SEED, "learn", "prompts")
    vocabulary = case.config.vocab_size - SPECIAL
    lengths = rng.integers(online.words[0], online.words[1] + 1, count)
    texts = (" ".join(f"w{w}" for w in rng.integers(vocabulary, size=n)) for n in lengths)
    return [Prompt(messages=(Message(role="user", content=text),)) for text in texts]
