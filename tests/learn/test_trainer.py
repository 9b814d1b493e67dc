"""The update as a whole, against a float64 one that takes one pair at a time without padding."""

import gc
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from eva.checkpoints import fingerprint
from eva.errors import BackEndError
from eva.learn.batches import prompt_tokens, response_tokens
from eva.learn.schedule import learning_rate, planned_steps
from eva.learn.trainer import make_learner
from eva.pairs import best_worst_pairs
from eva.parts.learners import Dpo, Ipo, Orpo, OwnOffline, Simpo, Sppo
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Response, Rollout
from tests.learn.runs import (
    SEED,
    Learn,
    MakeConfig,
    MakeStart,
    assert_alike,
    file_bytes,
    largest_difference,
    read_log,
    read_weights,
)


def slow_logp(model: Any, prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    """log pi(y|x) token by token of one unpadded sequence."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
    return torch.stack([logits[len(prompt) - 1 + t, y] for t, y in enumerate(response)]).sum()


def slow_pair_loss(
    part: OwnOffline,
    chosen: tuple[torch.Tensor, torch.Tensor, int],
    rejected: tuple[torch.Tensor, torch.Tensor, int],
    wins: tuple[float, float],
) -> torch.Tensor:
    """The loss of one pair as the papers write it: (log pi, log ref, tokens) of both responses."""
    (new_w, ref_w, n_w), (new_l, ref_l, n_l) = chosen, rejected
    match part:
        case Dpo():
            h, eps = part.beta * (new_w - ref_w - new_l + ref_l), part.label_smoothing
            loss = (1 - eps) * torch.log(1 + torch.exp(-h)) + eps * torch.log(1 + torch.exp(h))
        case Ipo():
            a, b = (n_w, n_l) if part.length_normalised else (1, 1)
            loss = ((new_w - ref_w) / a - (new_l - ref_l) / b - 1 / (2 * part.beta)) ** 2
        case Sppo():
            loss = (new_w - ref_w - (wins[0] - 0.5) / part.beta) ** 2
            loss = loss + (new_l - ref_l - (wins[1] - 0.5) / part.beta) ** 2
        case Simpo():
            u = part.beta * (new_w / n_w - new_l / n_l) - part.gamma
            loss = torch.log(1 + torch.exp(-u))
        case Orpo():
            p_w, p_l = torch.exp(new_w / n_w), torch.exp(new_l / n_l)
            odds = torch.log(p_w / (1 - p_w)) - torch.log(p_l / (1 - p_l))
            loss = -new_w / n_w + part.beta * torch.log(1 + torch.exp(-odds))
    return loss - part.nll * new_w / n_w


def slow_wins(part: OwnOffline, rewards: Sequence[float]) -> tuple[float, float]:
    """P(best beats the others) and P(worst beats the others), of a whole group."""

    def beats(r: float, s: float) -> float:
        return 1 / (1 + math.exp(-(r - s) / part.scale))

    if not isinstance(part, Sppo) or part.labels == "hard":
        return 1.0, 0.0
    ends = []
    for end in (max(rewards), min(rewards)):
        others = list(rewards)
        others.remove(end)
        ends.append(sum(beats(end, other) for other in others) / len(others))
    return ends[0], ends[1]


def slow_update(
    start: Checkpoint, lessons: Sequence[Rollout], config: OwnOffline
) -> tuple[Any, list[tuple[float, float]]]:
    """The model in float64 after the update, and the loss and gradient norm of each step.

    The attribute `least` of a weight is the smallest gradient it had in any step, unclipped.
    """
    model = AutoModelForCausalLM.from_pretrained(start.uri).double()
    tokenizer = AutoTokenizer.from_pretrained(start.uri)
    pairs = best_worst_pairs(lessons).pairs
    prompts = prompt_tokens([pair.prompt for pair in pairs], tokenizer)
    answers = [[response_tokens(y, tokenizer) for y in (p.chosen, p.rejected)] for p in pairs]
    wins = [slow_wins(config, [r for r in rollout.rewards if r is not None]) for rollout in lessons]

    def both(i: int) -> list[torch.Tensor]:
        return [slow_logp(model, prompts[i], answer) for answer in answers[i]]

    with torch.no_grad():
        reference = [both(i) for i in range(len(pairs))]
    decayed = [
        {"params": [p], "weight_decay": config.weight_decay * (p.ndim > 1)}
        for p in model.parameters()
    ]
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(decayed, betas=config.betas)
    else:
        optimizer = torch.optim.RMSprop(decayed, alpha=config.betas[1])
    sizes = [len(x) + sum(map(len, ys)) for x, ys in zip(prompts, answers, strict=True)]
    plan = planned_steps(sizes, config, SEED)
    report = []
    for k, step in enumerate(plan):
        optimizer.zero_grad()
        mean = torch.zeros((), dtype=torch.float64)
        for i in step:
            sides = zip(both(i), reference[i], map(len, answers[i]), strict=True)
            mean = mean + slow_pair_loss(config, *sides, wins[i]) / len(step)
        mean.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        scale = 1.0 if config.clip is None else min(1.0, config.clip / float(norm))
        for parameter in model.parameters():
            size = parameter.grad.abs()
            parameter.least = torch.minimum(parameter.least, size) if k else size
            parameter.grad.mul_(scale)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(k, len(plan), config)
        optimizer.step()
        report.append((mean.item(), norm.item()))
    return model, report


CASES = {
    "dpo": ("llama", {"share_prompts": True}),
    "dpo, clipped": (
        "qwen3",
        {"clip": 0.05, "weight_decay": 0.1, "schedule": "linear", "floor": 0.1},
    ),
    "dpo, smoothed": ("gemma2", {"label_smoothing": 0.1, "micro_tokens": 90}),
    "dpo, epochs": ("gpt2", {"steps": None, "epochs": 1.5, "clip": None, "betas": (0.5, 0.7)}),
    "dpo, nll": ("llama", {"nll": 0.2, "batch_tokens": 60}),
    "ipo": ("llama", {"kind": "ipo", "share_prompts": True}),
    "ipo, summed": ("gpt2", {"kind": "ipo", "length_normalised": False}),
    "sppo": ("llama", {"kind": "sppo", "scale": 2.0}),
    "sppo, hard": ("qwen3", {"kind": "sppo", "labels": "hard", "optimizer": "adamw"}),
    "simpo": ("llama", {"kind": "simpo", "beta": 2.0, "gamma": 0.7}),
    "orpo": ("gemma2", {"kind": "orpo", "nll": 0.1}),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_weights_equal_the_slow_formula(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn, lessons: list[Rollout], case: str
) -> None:
    kind, choices = CASES[case]
    start, config = make_start(kind), make_config(lr=1e-4, **choices)
    checkpoint, log = learn(start, config)
    slow, report = slow_update(start, lessons, config)

    assert [row["loss"] for row in log] == pytest.approx(
        [loss for loss, _ in report], rel=1e-5, abs=1e-5
    )
    assert log[0]["loss"] == pytest.approx(report[0][0], rel=1e-5, abs=2e-6)
    assert [row["grad_norm"] for row in log] == pytest.approx([n for _, n in report], rel=1e-4)
    ours, begun = read_weights(checkpoint), read_weights(start)
    for name, weight in slow.named_parameters():
        # The optimiser divides a gradient by its own size: where it is zero but for rounding (the
        # bias of a key), the step is noise. RMSprop's first one is 1 / sqrt(1 - alpha) as long.
        is_noise = weight.least < 1e-4
        longest = (
            2 * config.lr / math.sqrt(1 - config.betas[1] if config.optimizer == "rmsprop" else 1)
        )
        difference = (ours[name] - weight).abs()
        assert bool((difference[~is_noise] < 1e-6 * longest / (2 * config.lr)).all()), name
        assert bool((difference[is_noise] < longest * len(log)).all()), name
    compared = [weight.least >= 1e-4 for weight in slow.parameters()]
    assert sum(int(c.sum()) for c in compared) > 0.4 * sum(c.numel() for c in compared)
    assert max(float((ours[name] - begun[name]).abs().max()) for name in ours) > config.lr


# ---------------------------------------------------------------- the claims of the learner


def test_the_first_loss_is_log_two(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    _, log = learn(make_start(), make_config())
    first = log[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["reward_chosen"] == pytest.approx(0.0, abs=1e-5)
    assert first["margin"] == pytest.approx(0.0, abs=1e-5)


def test_the_log_has_a_line_for_each_step_without_times(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    _, log = learn(make_start(), make_config(steps=4, warmup=2, schedule="constant"))
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert [row["lr"] for row in log] == [5e-4, 1e-3, 1e-3, 1e-3]
    assert [row["pairs"] for row in log] == [5] * 4
    names = {"step", "loss", "accuracy", "reward_chosen", "reward_rejected", "margin", "kl"}
    assert set(log[0]) == names | {"grad_norm", "lr", "pairs", "tokens"}
    assert all(
        row["margin"] == pytest.approx(row["reward_chosen"] - row["reward_rejected"], abs=1e-5)
        for row in log
    )


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_micro_batches_do_not_change_the_update(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn, kind: str
) -> None:
    start = make_start(kind)
    whole, whole_log = learn(start, make_config(micro_tokens=10**6, lr=2e-5))
    parts, parts_log = learn(start, make_config(micro_tokens=1, lr=2e-5))
    assert largest_difference(whole, parts) < 1e-6
    assert_alike(whole_log, parts_log)


def test_gradient_checkpointing_does_not_change_the_update(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start = make_start("gpt2", dropout=0.1)
    kept, _ = learn(start, make_config())
    again, _ = learn(start, make_config(gradient_checkpointing=True))
    assert largest_difference(kept, again) < 1e-6


def test_bfloat16_computes_nearly_the_same_on_float32_weights(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start = make_start()
    exact, exact_log = learn(start, make_config())
    rough, rough_log = learn(start, make_config(dtype="bfloat16"))
    assert {w.dtype for w in read_weights(rough).values()} == {torch.float32}
    assert rough.id != exact.id
    assert rough_log[0]["grad_norm"] == pytest.approx(exact_log[0]["grad_norm"], rel=0.05)


def test_the_same_seed_gives_the_same_bytes(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start = make_start("gpt2", dropout=0.1)
    (one, _), (two, _), (other, _) = (
        learn(start, make_config(), seed=seed) for seed in (SEED, SEED, SEED + 1)
    )
    assert file_bytes(Path(one.uri).parent) == file_bytes(Path(two.uri).parent)
    assert one.id == two.id != other.id
    assert one.id == fingerprint(Path(one.uri))


def test_dropout_is_off_for_the_reference_on_for_the_update_and_drawn_from_the_seed_alone(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start = make_start("gpt2", dropout=0.3)
    state = torch.get_rng_state()
    (_, one), (_, two) = (learn(start, make_config(), seed=SEED) for _ in range(2))
    assert one == two
    assert abs(one[0]["loss"] - math.log(2)) > 1e-3
    assert torch.equal(torch.get_rng_state(), state)


def test_learning_widens_the_margin(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    _, log = learn(make_start(), make_config(steps=20, batch=13, lr=3e-3))
    assert log[-1]["margin"] > log[9]["margin"] > log[0]["margin"] + 0.5
    assert log[-1]["accuracy"] == 1.0
    assert log[-1]["loss"] < 0.4


def test_the_start_is_left_untouched_and_the_checkpoint_is_a_whole_model(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start = make_start()
    before = file_bytes(Path(start.uri))
    checkpoint, _ = learn(start, make_config())
    assert file_bytes(Path(start.uri)) == before
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names <= {path.name for path in Path(checkpoint.uri).iterdir()}
    assert start.uri not in str(file_bytes(Path(checkpoint.uri)))
    chained, _ = learn(checkpoint, make_config())
    assert chained.id != checkpoint.id


def test_a_loss_that_is_not_finite_stops_before_the_step(
    make_start: MakeStart, make_config: MakeConfig, lessons: list[Rollout], tmp_path: Path
) -> None:
    start, out = make_start(), tmp_path / "out"
    before = file_bytes(Path(start.uri))
    out.mkdir()
    learner = make_learner(make_config(lr=1e30, warmup=0, schedule="constant"))
    with pytest.raises(BackEndError, match=r"step 2 of 3 .*1e\+30.*learner\.lr"):
        learner(start, lessons, out=out, seed=SEED)
    assert [row["step"] for row in read_log(out)] == [1]
    assert not (out / "checkpoint").exists()
    good = read_weights(Checkpoint(uri=str(out / "last_good"), id=""))
    assert all(bool(torch.isfinite(weight).all()) for weight in good.values())
    assert file_bytes(Path(start.uri)) == before


def test_no_pairs_keep_the_weights_and_are_counted(
    make_start: MakeStart,
    make_config: MakeConfig,
    learn: Learn,
    make_rollout: Callable[..., Rollout],
) -> None:
    answers = [Response(text="w0", tokens=(7, 2)), Response(text="w1", tokens=(8, 2))]
    ties = [make_rollout("w2", answers, rewards) for rewards in ([1.0, 1.0], [None, 1.0])]
    start = make_start()
    checkpoint, log = learn(start, make_config(), rollouts=ties)
    assert log == []
    assert largest_difference(start, checkpoint) == 0.0
    assert checkpoint.id == fingerprint(Path(start.uri))
    counts = json.loads((Path(checkpoint.uri).parent / "pairs.json").read_bytes())
    assert counts == {"rollouts": 2, "pairs": 0, "steps": 0, "ties": 1, "missing": 1}


def test_pairs_that_no_step_takes_are_allowed(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    _, log = learn(make_start(), make_config(steps=1, batch=2))
    assert [row["pairs"] for row in log] == [2]


def test_a_start_that_is_no_model_is_refused(
    make_config: MakeConfig, learn: Learn, tmp_path: Path
) -> None:
    with pytest.raises(BackEndError, match="weights of a causal language model"):
        learn(Checkpoint(uri=str(tmp_path), id="x"), make_config())


def test_the_policy_names_device_threads_and_revision(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start, threads = make_start(), torch.get_num_threads()
    # A folder has no revisions, so naming one changes nothing; nor do threads, but for the speed.
    policy = HfPolicy(model=start.uri, revision="main", device="cpu", threads=1)
    named, _ = learn(start, make_config(lr=2e-5), policy=policy)
    assert torch.get_num_threads() == threads
    assert largest_difference(named, learn(start, make_config(lr=2e-5))[0]) < 1e-6


def test_what_other_lessons_left_is_not_read(
    make_start: MakeStart, make_config: MakeConfig, lessons: list[Rollout], tmp_path: Path
) -> None:
    # The same prompts and lengths, other responses: the reference of before would be wrong.
    start, out = make_start(), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("not of an update")
    learner = make_learner(make_config())
    learner(start, lessons, out=out, seed=SEED)
    swapped = [r.model_copy(update={"responses": r.responses[::-1]}) for r in lessons]
    learner(start, swapped, out=out, seed=SEED)
    assert read_log(out)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert (out / "mine.txt").exists()


def test_kernels_for_a_gpu_are_refused_without_one(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    policy = HfPolicy(model="x", device="cpu")
    with pytest.raises(BackEndError, match=r"learner\.liger needs a CUDA device.*cpu"):
        learn(make_start(), make_config(liger=True), policy=policy)


def test_no_model_stays_in_memory(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(thing) is GPT2LMHeadModel for thing in gc.get_objects())

    start, before = make_start("gpt2"), alive()
    for _ in range(3):
        learn(start, make_config(steps=1))
    assert alive() == before


def test_texts_without_tokens_are_learnt_and_said(
    make_start: MakeStart,
    make_config: MakeConfig,
    learn: Learn,
    lessons: list[Rollout],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bare(rollout: Rollout) -> Rollout:
        gone = {"tokens": None, "logprobs": None}
        answers = tuple(y.model_copy(update=gone) for y in rollout.responses)
        return rollout.model_copy(update={"responses": answers})

    with caplog.at_level("WARNING", "eva"):
        learn(make_start(), make_config())
    assert "have no token ids" not in caplog.text
    with caplog.at_level("WARNING", "eva"):
        learn(make_start(), make_config(), rollouts=[bare(one) for one in lessons])
    assert "have no token ids; their texts are tokenised again" in caplog.text
