"""Learners that sample for themselves: one model answers and learns in turn."""

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from eva.config import HfPolicy
from eva.errors import BackEndError
from eva.learn.batches import prompt_tokens
from eva.learn.online import make_learner
from eva.learn.schedule import learning_rate
from eva.learners import Grpo, LearnerPart, OnlineDpo, OwnOnline, Rloo
from eva.protocols import Trainee
from eva.records import Checkpoint, Message, Prompt, Response, Rollout, Sampling
from tests.learn.runs import MakeStart, file_bytes, read_log, read_weights
from tests.learn.test_trainer import slow_logp

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=5)
STEPS = 3
ROUNDS = 2
PROMPTS = tuple(
    Prompt(messages=(Message(role="user", content=text),))
    for text in ("w1 w2 w3", "w4", "w5 w6", "w7 w8 w9 w10")
)
Open = Callable[..., AbstractContextManager[Trainee]]


def make_part(**choices: object) -> OwnOnline:
    small = {"lr": 1e-3, "steps": STEPS, "batch": 4, "warmup": 0, "betas": (0.9, 0.99)}
    part: Any = TypeAdapter(LearnerPart).validate_python(small | choices)
    return part


@dataclass(frozen=True)
class Opener:
    """Opens a round of a learner in a folder of its own."""

    start: Checkpoint
    home: Path

    def __call__(
        self, part: OwnOnline, out: str = "out", seed: int = 5, t: int = 0, at: Any = None
    ) -> AbstractContextManager[Trainee]:
        folder = self.home / out
        folder.mkdir(exist_ok=True)
        policy = HfPolicy(model=self.start.uri, device="cpu", threads=1)
        learner = make_learner(part, policy, SAMPLING, ROUNDS)
        return learner(at or self.start, reference=self.start, out=folder, seed=seed, round=t)


@pytest.fixture
def opener(make_start: MakeStart, tmp_path: Path) -> Opener:
    return Opener(make_start("llama"), tmp_path)


def reward(response: Response) -> float:
    """Graded, and far from constant for random models."""
    return (sum(response.tokens or ()) % 7) / 7


def answered(trainee: Trainee, seed: int, n: int = 4) -> list[Rollout]:
    groups = trainee.policy(PROMPTS, n, sampling=SAMPLING, seed=seed)
    return [rolled(x, ys, [reward(y) for y in ys]) for x, ys in zip(PROMPTS, groups, strict=True)]


def rolled(
    prompt: Prompt, responses: Sequence[Response], rewards: Sequence[float | None]
) -> Rollout:
    return Rollout(
        prompt=prompt, responses=tuple(responses), rewards=tuple(rewards), policy="p", round=0
    )


def played(trainee: Trainee, first: int = 0) -> list[list[Rollout]]:
    """The mini-batches from `first` on, learnt."""
    found = []
    for k in range(first, STEPS):
        found.append(answered(trainee, seed=k))
        trainee.learn(found[-1])
        trainee.keep(f"after {k + 1}")
    return found


# ---------------------------------------------------------------- the slow formula


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


# ---------------------------------------------------------------- claims


def test_answers_come_from_the_weights_as_they_are(opener: Opener) -> None:
    with opener(make_part(kind="rloo", kl=0.0, lr=0.05)) as trainee:
        before = answered(trainee, seed=1)
        trainee.learn(before)
        after = answered(trainee, seed=1)
        checkpoint = trainee.finish()
    assert [r.responses for r in before] != [r.responses for r in after]
    model = AutoModelForCausalLM.from_pretrained(checkpoint.uri)
    (prompt, *_) = prompt_tokens(PROMPTS, AutoTokenizer.from_pretrained(checkpoint.uri))
    for response in after[0].responses:
        logp = slow_logp(model, prompt, response.tokens or ())
        assert sum(response.logprobs or ()) == pytest.approx(logp.item(), abs=1e-3)


def test_learning_raises_the_reward(opener: Opener) -> None:
    part = make_part(kind="rloo", kl=0.0, lr=3e-3, steps=30)
    with opener(part) as trainee:
        means = []
        for k in range(30):
            groups = trainee.policy(PROMPTS, 8, sampling=SAMPLING, seed=k)
            rewards = [[odd_share(y) for y in ys] for ys in groups]
            trainee.learn([rolled(*one) for one in zip(PROMPTS, groups, rewards, strict=True)])
            means.append(np.mean(rewards))
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 0.15


def odd_share(response: Response) -> float:
    """The share of tokens with an odd id: a reward that is easily raised."""
    tokens = response.tokens or ()
    return sum(token % 2 for token in tokens) / len(tokens)


def test_a_mini_batch_of_ties_moves_no_weight_and_is_counted(opener: Opener) -> None:
    with opener(make_part(kind="rloo", kl=0.0)) as trainee:
        lessons = answered(trainee, seed=0)
        ties = [rolled(r.prompt, r.responses, [0.5] * 4) for r in lessons]
        assert trainee.learn(ties) == {"ties": 4.0, "missing": 0.0}
        assert trainee.step == 1
        checkpoint = trainee.finish()
    begun, ended = read_weights(opener.start), read_weights(checkpoint)
    assert all(torch.equal(begun[name], ended[name]) for name in begun)
    assert read_log(opener.home / "out") == []


def test_ties_beside_others_cost_nothing_and_count_in_the_mean(opener: Opener) -> None:
    # Without a penalty a group of equal rewards adds nothing; the mean is over all four groups.
    def logged(out: str, mixed: bool) -> float:
        with opener(make_part(kind="rloo", kl=0.0, clip=None), out) as trainee:
            lessons = answered(trainee, seed=0)
            ties = [rolled(r.prompt, r.responses, [1.0] * 4) for r in lessons[1:]]
            return trainee.learn([lessons[0], *(ties if mixed else [])])["grad_norm"]

    assert logged("mixed", True) == pytest.approx(logged("alone", False) / 4, rel=1e-4)


def test_missing_rewards_are_left_out(opener: Opener) -> None:
    def norm(out: str, rewards: Sequence[float | None], keep: int) -> dict[str, float]:
        with opener(make_part(kind="rloo", kl=0.0, clip=None), out) as trainee:
            lessons = answered(trainee, seed=0)
            first = rolled(lessons[0].prompt, lessons[0].responses[:keep], rewards)
            lone = rolled(lessons[1].prompt, lessons[1].responses, [1.0, None, None, None])
            return trainee.learn([first, lone])

    three, four = norm("three", [1.0, 0.0, 0.5], 3), norm("four", [1.0, 0.0, 0.5, None], 4)
    assert three == four
    assert three["missing"] == 1.0


def test_two_responses_and_huge_rewards_are_finite(opener: Opener) -> None:
    for number, kind in enumerate(("rloo", "grpo", "online_dpo")):
        with opener(make_part(kind=kind), f"out{number}") as trainee:
            lessons = answered(trainee, seed=0, n=2)
            huge = [rolled(r.prompt, r.responses, [1e12, -1e12]) for r in lessons]
            assert all(map(math.isfinite, trainee.learn(huge).values()))


def test_reused_samples_are_clipped(opener: Opener) -> None:
    # A large learning rate drives the ratios far from 1 after the first step, so the second step is
    # clipped where the advantage is positive and the ratio above 1.2, and its loss is bounded.
    part = make_part(kind="rloo", kl=0.0, reuse=2, lr=5e-3)
    with opener(part) as trainee:
        lessons = answered(trainee, seed=0)
        trainee.learn(lessons)
        trainee.finish()
    first, second = read_log(opener.home / "out")
    assert [first["step"], second["step"]] == [1, 1]
    assert second["loss"] < first["loss"]
    gain = np.mean([max(a, 0) for r in lessons for a in advantages(part, list(r.rewards))])
    assert second["loss"] >= -1.2 * float(gain)


@pytest.mark.parametrize("kind", ["rloo", "online_dpo"])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_round_goes_on_to_the_same_bytes(
    opener: Opener, kind: str, killed_after: int
) -> None:
    part = make_part(kind=kind, save_steps=1)
    with opener(part, "whole") as trainee:
        played(trainee)
        trainee.finish()
    with opener(part, "cut") as trainee:
        for k in range(killed_after):
            trainee.learn(answered(trainee, seed=k))
            trainee.keep(f"after {k + 1}")
        trainee.learn(answered(trainee, seed=killed_after))  # and killed before its snapshot
    with opener(part, "cut") as trainee:
        assert (trainee.step, trainee.notes) == (killed_after, f"after {killed_after}")
        played(trainee, first=killed_after)
        trainee.finish()
    assert file_bytes(opener.home / "whole") == file_bytes(opener.home / "cut")


def test_a_snapshot_of_another_update_is_not_gone_on_from(opener: Opener) -> None:
    part = make_part(kind="rloo", save_steps=1)
    with opener(part) as trainee:
        trainee.learn(answered(trainee, seed=0))
        trainee.keep("mine")
    with opener(part, seed=6) as trainee:
        assert (trainee.step, trainee.notes) == (0, None)


def test_the_optimiser_goes_on_in_the_next_round(opener: Opener) -> None:
    # Two rounds of three mini-batches are one of six: the same moments, the same learning rates.
    part = make_part(kind="rloo", kl=0.0, warmup=2)
    with opener(part, "first") as trainee:
        batches = played(trainee)
        first = trainee.finish()
    with opener(part, "second", t=1, at=first) as trainee:
        batches += played(trainee)
        second = trainee.finish()
    long = make_part(kind="rloo", kl=0.0, warmup=2, steps=2 * STEPS)
    policy = HfPolicy(model=opener.start.uri, device="cpu", threads=1)
    out = opener.home / "long"
    out.mkdir()
    learner = make_learner(long, policy, SAMPLING, 1)
    with learner(opener.start, reference=opener.start, out=out, seed=5, round=0) as trainee:
        for lessons in batches:
            trainee.learn(lessons)
        whole = trainee.finish()
    rates = [row["lr"] for name in ("first", "second") for row in read_log(opener.home / name)]
    assert rates == [row["lr"] for row in read_log(out)]
    assert rates[:3] == [5e-4, 1e-3, 1e-3]
    assert second.id == whole.id


@pytest.mark.parametrize(("anchor", "moves"), [("theta_0", True), ("round", False)])
def test_the_reference_is_theta_0_or_where_the_round_begins(
    opener: Opener, anchor: str, moves: bool
) -> None:
    part = make_part(kind="rloo", kl=0.1, reference=anchor, lr=0.01)
    with opener(part, "first") as trainee:
        played(trainee)
        first = trainee.finish()
    with opener(part, "second", t=1, at=first) as trainee:
        metrics = trainee.learn(answered(trainee, seed=9))
    assert (abs(metrics["kl"]) > 1e-3) == moves


def test_weights_that_diverge_stop_before_the_step_and_the_last_good_ones_are_kept(
    opener: Opener,
) -> None:
    with opener(make_part(kind="rloo", kl=0.0, lr=1e30)) as trainee:
        lessons = answered(trainee, seed=0)
        trainee.learn(lessons)
        with pytest.raises(BackEndError, match=r"mini-batch 2 of 3 .*learner\.lr.*last_good"):
            trainee.learn(lessons)
    good = read_weights(Checkpoint(uri=str(opener.home / "out" / "last_good"), id=""))
    assert all(bool(torch.isfinite(weight).all()) for weight in good.values())


@pytest.mark.parametrize("kind", ["rloo", "online_dpo"])
def test_a_closed_trainee_holds_nothing_even_if_somebody_holds_it(
    opener: Opener, kind: str
) -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(thing) is LlamaForCausalLM for thing in gc.get_objects())

    before = alive()
    with opener(make_part(kind=kind)) as trainee:
        trainee.learn(answered(trainee, seed=0))
        assert alive() == before + 2  # the policy and its reference
    assert alive() == before
    with pytest.raises(BackEndError, match="closed"):
        trainee.finish()


def test_an_adapter_that_begins_anew_takes_over_no_moments(opener: Opener) -> None:
    part = make_part(kind="rloo", kl=0.0, lora={"rank": 2, "merge": True})
    with opener(part, "first") as trainee:
        played(trainee)
        first = trainee.finish()
    with opener(part, "second", t=1, at=first) as trainee:
        solver: Any = trainee._solver  # type: ignore[attr-defined]
        assert not solver.optimizer.state
    kept = make_part(kind="rloo", kl=0.0, lora={"rank": 2})
    with opener(kept, "third") as trainee:
        played(trainee)
        third = trainee.finish()
    with opener(kept, "fourth", t=1, at=third) as trainee:
        solver = trainee._solver  # type: ignore[attr-defined]
        assert solver.optimizer.state


def test_moments_that_are_gone_are_not_made_up(opener: Opener) -> None:
    part = make_part(kind="rloo", kl=0.0)
    with opener(part, "first") as trainee:
        played(trainee)
        first = trainee.finish()
    (opener.home / "first" / "optimizer.pt").unlink()
    with (
        pytest.raises(BackEndError, match=r"optimizer\.pt.*is gone"),
        opener(part, "second", t=1, at=first),
    ):
        pass


def test_a_closed_trainee_gives_no_answers(opener: Opener) -> None:
    with opener(make_part(kind="rloo")) as trainee:
        pass
    with pytest.raises(BackEndError, match="open policy"):
        answered(trainee, seed=0)
