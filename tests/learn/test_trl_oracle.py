"""Optimiser steps against TRL's trainers, where TRL is installed; it is no dependency of eva."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva.formulas.advantages import loo_advantages
from eva.learn.batches import TokenGroup
from eva.learn.objectives import objective
from eva.learn.solver import made_solver, scored, stepped
from eva.learn.weights import opened
from eva.parts.learners import LearnerPart, Update
from eva.records import Checkpoint
from tests.learn.runs import MakeStart
from tests.tiny import PAD, SHAPE, SPECIAL

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None, reason="needs trl: pip install trl==1.16"
    ),
    pytest.mark.filterwarnings("ignore"),  # TRL's own, which are not ours to mend
]
LR = 1e-4
STEPS = 3


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def random_pairs(count: int = 6, prompt_tokens: int | None = None) -> list[TokenGroup]:
    """Pairs of many lengths, or with prompts of one length."""
    rng = np.random.default_rng(2)

    def tokens(length: int) -> list[int]:
        return rng.integers(len(SPECIAL), SHAPE["vocab_size"], size=length).tolist()

    lengths = rng.integers(1, 9, size=(count, 3)).tolist()
    return [
        TokenGroup(tokens(prompt_tokens or x), (tokens(up), tokens(down)), (1.0, 0.0))
        for x, up, down in lengths
    ]


def our_steps(
    start: Checkpoint, groups: Sequence[TokenGroup], steps: int, **choices: object
) -> tuple[Any, list[dict[str, float]]]:
    """Our model after steps on all groups, each at the full learning rate, and their log."""
    part: Any = TypeAdapter(LearnerPart).validate_python({"lr": LR, **choices})
    assert isinstance(part, Update)
    weights = opened(start.uri)
    solver = made_solver(weights, part, objective(part, max_tokens=8), "cpu")
    index = np.arange(len(groups), dtype=np.intp)
    reference = scored(solver, solver.scorer, groups, index)
    reference = reference if solver.objective.needs_reference else None
    log = [stepped(solver, groups, index, lr=LR, reference=reference, seed=k) for k in range(steps)]
    return weights.model, log


def arguments(out: Path, batch: int, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def history(trainer: Any) -> list[dict[str, float]]:
    return [row for row in trainer.state.log_history if "loss" in row]


def assert_same_weights(ours: Any, theirs: Any, start: Checkpoint) -> None:
    begun = dict(AutoModelForCausalLM.from_pretrained(start.uri).named_parameters())
    theirs = dict(theirs.named_parameters())
    moved = 0.0
    for name, weight in ours.named_parameters():
        assert float((weight - theirs[name]).detach().abs().max()) < 2e-6, name
        moved = max(moved, float((weight - begun[name]).detach().abs().max()))
    assert moved > 0.9 * LR


def dpo_trainer(start: Checkpoint, groups: Sequence[TokenGroup], out: Path, **options: Any) -> Any:
    """TRL's DPOTrainer after its steps, each on all pairs, so that order does not matter."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """TRL would tokenise text again and end answers that were cut; it takes ids as well."""
            return dataset

    rows = [
        {"prompt": "", "chosen": "", "rejected": "", "prompt_ids": group.prompt}
        | {"chosen_ids": group.responses[0], "rejected_ids": group.responses[1]}
        for group in groups
    ]
    policy, reference = (AutoModelForCausalLM.from_pretrained(start.uri) for _ in range(2))
    trainer = OnTokens(
        policy,
        ref_model=reference,
        args=DPOConfig(**arguments(out, len(rows), STEPS), max_length=None, **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(start.uri),
    )
    trainer.train()
    return trainer


DPO_LOSSES = {
    "dpo": ({"kind": "dpo", "beta": 0.3}, {"loss_type": "sigmoid", "beta": 0.3}),
    "ipo": ({"kind": "ipo", "beta": 0.3}, {"loss_type": "ipo", "beta": 0.3}),
    "sppo": (
        {
            "kind": "sppo",
            "beta": 0.3,
            "labels": "hard",
            "optimizer": "adamw",
            "betas": (0.9, 0.999),
        },
        {"loss_type": "sppo_hard", "beta": 0.3},
    ),
}
THEIR_NAMES = {"grad_norm": "grad_norm", "margin": "rewards/margins"}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_steps_of_losses_with_a_reference_equal_those_of_dpo_trainer(
    make_start: MakeStart, tmp_path: Path, kind: str, loss: str
) -> None:
    start, groups = make_start(kind), random_pairs()
    ours, theirs = DPO_LOSSES[loss]
    trainer = dpo_trainer(start, groups, tmp_path / "trl", **theirs)
    model, log = our_steps(start, groups, STEPS, **ours)
    for row, their_row in zip(log, history(trainer), strict=True):
        assert row["loss"] == pytest.approx(their_row["loss"], rel=1e-5, abs=1e-5)
        for name, their_name in THEIR_NAMES.items():
            assert row[name] == pytest.approx(their_row[their_name], rel=1e-4, abs=1e-5)
    assert_same_weights(model, trainer.model, start)


def text_batch(groups: Sequence[TokenGroup]) -> dict[str, Tensor]:
    """What the collator of CPO and ORPO makes of pairs: prompt and response in one row."""
    batch = {}
    for which, name in enumerate(("chosen", "rejected")):
        rows = [(list(group.prompt), list(group.responses[which])) for group in groups]
        ids = [torch.tensor(x + y) for x, y in rows]
        labels = [torch.tensor([-100] * len(x) + y) for x, y in rows]
        ones = [torch.ones_like(row) for row in ids]
        batch[f"{name}_input_ids"] = pad_sequence(ids, batch_first=True, padding_value=PAD)
        batch[f"{name}_attention_mask"] = pad_sequence(ones, batch_first=True)
        batch[f"{name}_labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    return batch


def reference_free_trainer(
    start: Checkpoint, groups: Sequence[TokenGroup], out: Path, name: str, **options: Any
) -> Any:
    """TRL's CPO or ORPO trainer after its steps; its collator is told the tokens."""
    from datasets import Dataset

    module = importlib.import_module(f"trl.experimental.{name.lower()}")
    config, make = (getattr(module, f"{name}{what}") for what in ("Config", "Trainer"))
    trainer = make(
        AutoModelForCausalLM.from_pretrained(start.uri),
        args=config(**arguments(out, 1, STEPS), remove_unused_columns=False, **options),
        train_dataset=Dataset.from_list([{"prompt": "w1", "chosen": "w2", "rejected": "w3"}]),
        processing_class=AutoTokenizer.from_pretrained(start.uri),
        data_collator=lambda rows: text_batch(groups),
    )
    trainer.train()
    return trainer


def test_steps_of_simpo_equal_those_of_cpo_trainer(make_start: MakeStart, tmp_path: Path) -> None:
    start, groups = make_start(), random_pairs()
    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.5, "simpo_gamma": 1.4}
    trainer = reference_free_trainer(start, groups, tmp_path, "CPO", **options)
    model, log = our_steps(start, groups, STEPS, kind="simpo", beta=2.5, gamma=1.4)
    losses = [row["loss"] for row in history(trainer)]
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert_same_weights(model, trainer.model, start)


def test_steps_of_orpo_equal_those_of_orpo_trainer(make_start: MakeStart, tmp_path: Path) -> None:
    # Their likelihood counts prompt and response but for the first token, ours the response: with
    # a prompt of one token, and a single pair, they are the same.
    start, groups = make_start(), random_pairs(1, prompt_tokens=1)
    trainer = reference_free_trainer(start, groups, tmp_path, "ORPO", beta=0.2)
    model, log = our_steps(start, groups, STEPS, kind="orpo", beta=0.2)
    losses = [row["loss"] for row in history(trainer)]
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert_same_weights(model, trainer.model, start)


def test_a_step_of_rloo_equals_that_of_rloo_trainer(make_start: MakeStart, tmp_path: Path) -> None:
    # given what their trainer sampled in its only step
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    start, seen = make_start(), []

    class Watched(RLOOTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(
                {name: value.clone() for name, value in inputs.items() if torch.is_tensor(value)}
            )
            return super().compute_loss(model, inputs, *args, **kwargs)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    sampling = {"num_generations": 4, "max_completion_length": 6, "beta": 0.0}
    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(start.uri),
        reward_funcs=reward,
        args=RLOOConfig(**arguments(tmp_path, 8, 1), **sampling),
        train_dataset=Dataset.from_list([{"prompt": "w1 w2"}, {"prompt": "w3"}]),
        processing_class=AutoTokenizer.from_pretrained(start.uri),
    )
    trainer.train()

    # when we learn from the same responses with the advantages of our formula
    (batch,) = seen
    rows = [
        (x[x_mask == 1].tolist(), y[y_mask == 1].tolist())
        for x, x_mask, y, y_mask in zip(
            *(batch[f"{of}_{what}"] for of in ("prompt", "completion") for what in ("ids", "mask")),
            strict=True,
        )
    ]
    by_prompt: dict[tuple[int, ...], list[list[int]]] = {}
    for x, y in rows:
        by_prompt.setdefault(tuple(x), []).append(y)
    groups = []
    for x, answers in by_prompt.items():
        rewards_P_G = np.array([[sum(y) % 7 / 7 for y in answers]])
        groups.append(TokenGroup(x, tuple(answers), tuple(loo_advantages(rewards_P_G)[0])))
    model, log = our_steps(start, groups, 1, kind="rloo", kl=0.0)

    # then loss, gradient and weights are theirs
    assert [len(group.responses) for group in groups] == [4, 4]
    assert log[0]["loss"] == pytest.approx(history(trainer)[0]["loss"], rel=1e-5, abs=1e-5)
    assert_same_weights(model, trainer.model, start)
