"""Learners that sample for themselves: one model answers and learns in turn."""

import gc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from eva.errors import BackEndError
from eva.learn.batches import prompt_tokens
from eva.learn.online import make_learner
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Response
from tests.learn.rounds import (
    PROMPTS,
    SAMPLING,
    STEPS,
    Opener,
    answered,
    make_part,
    played,
    rolled,
)
from tests.learn.runs import file_bytes, read_log, read_weights
from tests.learn.test_online_formula import advantages
from tests.learn.test_trainer import slow_logp


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


def test_a_reference_below_the_adapter_is_scored_without_a_second_model(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_part(kind="rloo", kl=0.5, reuse=2, lora={"rank": 2, "dropout": 0.1})

    def update(name: str) -> tuple[str, int]:
        """Two rounds; the checkpoint, and how many models were in memory."""
        with opener(part, f"{name}-first") as trainee:
            played(trainee)
            first = trainee.finish()
        gc.collect()
        with opener(part, f"{name}-second", t=1, at=first) as trainee:
            played(trainee)
            models = sum(type(thing) is LlamaForCausalLM for thing in gc.get_objects())
            return trainee.finish().id, models

    below, few = update("below")
    monkeypatch.setattr("eva.learn.online.is_base_of", lambda *_: False)
    apart, more = update("apart")
    assert below == apart
    assert few == more - 1


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
