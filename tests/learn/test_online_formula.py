"""A round of an online learner, against the formula for one response at a time."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva.learn.batches import prompt_tokens
from eva.learn.schedule import learning_rate
from eva.parts.learners import Grpo, OnlineDpo, OwnOnline, Rloo
from eva.records import Rollout
from tests.learn.rounds import (
    PROMPTS,
    ROUNDS,
    SAMPLING,
    STEPS,
    Opener,
    make_part,
    played,
)
from tests.learn.runs import read_log, read_weights


def slow_tokens(model: Any, prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    logits = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
    return torch.stack([logits[len(prompt) - 1 + t, y] for t, y in enumerate(response)])


def advantages(part: OwnOnline, rewards: list[float]) -> list[float]:
    n, mean = len(rewards), sum(rewards) / len(rewards)
    if isinstance(part, Rloo):
        return [r - (sum(rewards) - r) / (n - 1) for r in rewards]
    assert isinstance(part, Grpo)
    scale = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1)) if part.scaled else 1.0
    return [(r - mean) / scale if scale else 0.0 for r in rewards]


def slow_group_loss(
    part: OwnOnline, model: Any, reference: Any, prompts: list[list[int]], lessons: list[Rollout]
) -> torch.Tensor:
    """The loss of a mini-batch of the policy's own samples, response by response."""
    total, size = torch.zeros((), dtype=torch.float64), 0.0
    for prompt, rollout in zip(prompts, lessons, strict=True):
        rewards = [float(r or 0.0) for r in rollout.rewards]
        new = [slow_tokens(model, prompt, y.tokens or ()) for y in rollout.responses]
        with torch.no_grad():
            ref = [slow_tokens(reference, prompt, y.tokens or ()) for y in rollout.responses]
        if isinstance(part, OnlineDpo):
            if max(rewards) > min(rewards):
                up, down = rewards.index(max(rewards)), rewards.index(min(rewards))
                h = (new[up] - ref[up]).sum() - (new[down] - ref[down]).sum()
                total, size = total + torch.log(1 + torch.exp(-part.beta * h)), size + 1
            continue
        if isinstance(part, Rloo) and part.kl:
            pairs = zip(rewards, new, ref, strict=True)
            rewards = [r - part.kl * float((a - b).sum().detach()) for r, a, b in pairs]
        for advantage, a, b in zip(advantages(part, rewards), new, ref, strict=True):
            token_losses = -advantage * torch.exp(a - a.detach())
            if isinstance(part, Rloo):
                total, size = total - advantage * torch.exp((a - a.detach()).sum()), size + 1
                continue
            token_losses = token_losses + part.kl * (torch.exp(b - a) - (b - a) - 1)
            weight, one = {
                "response": (1 / len(a), 1),
                "token": (1.0, len(a)),
                "constant": (1.0, SAMPLING.max_tokens),
            }[part.average]
            total, size = total + weight * token_losses.sum(), size + one
    return total / size


CASES = {
    "rloo": {"kind": "rloo", "kl": 0.0},
    "rloo with a penalty": {"kind": "rloo", "kl": 0.2, "share_prompts": True},
    "grpo": {"kind": "grpo"},
    "grpo by response": {"kind": "grpo", "average": "response", "kl": 0.1},
    "dr grpo": {"kind": "grpo", "average": "constant", "scaled": False, "share_prompts": False},
    "online dpo": {"kind": "online_dpo", "beta": 0.5},
}


@pytest.mark.parametrize("case", CASES)
def test_a_round_equals_the_slow_formula(opener: Opener, case: str) -> None:
    part = make_part(lr=1e-4, **CASES[case])
    with opener(part) as trainee:
        batches = played(trainee)
        checkpoint = trainee.finish()

    model, reference = (
        AutoModelForCausalLM.from_pretrained(opener.start.uri).double() for _ in range(2)
    )
    tokens = prompt_tokens(PROMPTS, AutoTokenizer.from_pretrained(opener.start.uri))
    optimizer = torch.optim.AdamW(model.parameters(), betas=part.betas, weight_decay=0.0)
    log = read_log(opener.home / "out")
    for k, (lessons, row) in enumerate(zip(batches, log, strict=True)):
        loss = slow_group_loss(part, model, reference, tokens, lessons)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), part.clip or math.inf)
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)
        assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(k, ROUNDS * STEPS, part)
        optimizer.step()
    ours, begun = read_weights(checkpoint), read_weights(opener.start)
    for name, weight in model.named_parameters():
        difference = (ours[name] - weight.detach()).abs()
        assert float(difference.median()) < 1e-6, name
        assert float((difference < 5e-6).float().mean()) > 0.98, name  # the rest: zero gradients
    assert max(float((ours[name] - begun[name]).abs().max()) for name in ours) > part.lr
