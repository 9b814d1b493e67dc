"""The update against TRL's, where TRL is installed; it is no dependency of eva."""

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva.config import DpoLearner
from eva.learn.batches import token_pairs
from eva.learn.trainer import make_learner
from eva.pairs import best_worst_pairs
from eva.records import Checkpoint, Rollout

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None, reason="needs trl: pip install trl==1.16"
    ),
    pytest.mark.filterwarnings("ignore"),  # TRL's own, which are not ours to mend
]

THEIR_NAMES = {"loss": "loss", "grad_norm": "grad_norm", "margin": "rewards/margins"}


def trl_update(start: Checkpoint, lessons: list[Rollout], config: DpoLearner, out: Path) -> Any:
    """TRL's trainer after the same steps, each on all pairs, so that order does not matter."""
    with warnings.catch_warnings(action="ignore"):
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """TRL would tokenise text again and end answers that were cut; it takes ids as well."""
            return dataset

    tokenizer = AutoTokenizer.from_pretrained(start.uri)
    rows = [
        {"prompt": "", "chosen": "", "rejected": ""}
        | {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        for pair in token_pairs(best_worst_pairs(lessons).pairs, tokenizer)
    ]
    args = DPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=len(rows),
        max_steps=config.steps,
        learning_rate=config.lr,
        lr_scheduler_type="constant",
        beta=config.beta,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    policy, reference = (AutoModelForCausalLM.from_pretrained(start.uri) for _ in range(2))
    data = Dataset.from_list(rows)
    trainer = OnTokens(
        policy, ref_model=reference, args=args, train_dataset=data, processing_class=tokenizer
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_three_steps_equal_those_of_trl(
    make_start: Callable[..., Checkpoint],
    make_config: Callable[..., DpoLearner],
    lessons: list[Rollout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    start = make_start(kind)
    config = make_config(batch=len(lessons), lr=1e-4, warmup=0, schedule="constant")
    theirs = trl_update(start, lessons, config, tmp_path / "trl")
    (tmp_path / "out").mkdir()
    ours = make_learner(config)(start, lessons, out=tmp_path / "out", seed=1)

    history = [row for row in theirs.state.log_history if "loss" in row]
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").open("rb")]
    for row, their_row in zip(log, history, strict=True):
        for name, their_name in THEIR_NAMES.items():
            assert row[name] == pytest.approx(their_row[their_name], rel=1e-4, abs=1e-5)
    weights = dict(theirs.model.named_parameters())
    for name, weight in AutoModelForCausalLM.from_pretrained(ours.uri).named_parameters():
        assert float((weight - weights[name]).detach().abs().max()) < 2e-6, name
