"""TRL's side of bench/learn.py: DPOTrainer and RLOOTrainer on the same tokens.

Its stable trainers only, in float32 as eva on a CPU. DPOTrainer is handed token ids, since it would
tokenise text again and end answers that were cut; the ids come in the order of eva's plan.
"""

import gc
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback

from _learn_cases import SEED, TOKENIZER, Case, Offline, Online, asked
from _learn_eva import BETA, GENERATIONS, LR, Timed, pair_tokens, plan, reward
from eva.learn.batches import TokenGroup

with warnings.catch_warnings(action="ignore"):
    import trl

# TRL has types, but its classes are found lazily, where mypy does not see them.
TRL: Any = trl
MODEL: Any = AutoModelForCausalLM
CALLBACK: Any = TrainerCallback
disable_progress_bars()


@dataclass(frozen=True)
class Setting:
    """How TRL is called."""

    split: int
    """Pairs (DPO) or responses (RLOO) that go forward at once."""
    precompute: bool = True
    """DPO: whether the reference's log-probabilities are computed before the first step."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass; TRL's default is True."""
    is_sorted: bool = True
    """DPO: whether pairs are sorted by length within a step, so that little is padded."""
    cache: str | None = None
    """RLOO: the key-value cache of `generate`."""

    def __str__(self) -> str:
        words = [f"{self.split} at once"]
        words += ["precomputed"] * (self.precompute and not self.cache)
        words += ["checkpointing"] * self.checkpointing
        words += [self.cache] if self.cache else []
        return ", ".join(words)


class Clock(CALLBACK):  # type: ignore[misc]  # theirs has no types
    """CPU seconds between the beginning and the end of training."""

    begun = ended = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start: what comes before is set-up."""
        gc.collect()
        self.begun = time.process_time()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.ended = time.process_time()


class OnTokens(TRL.DPOTrainer):  # type: ignore[misc]  # theirs has no types
    """DPOTrainer on token ids, in a given order; `reference_seconds` is its own pass."""

    order: list[int]
    reference_seconds = 0.0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _get_train_sampler(self, *_: Any) -> list[int]:
        return self.order

    def _precompute_ref_logps(self, *given: Any) -> Any:
        gc.collect()
        begun = time.process_time()
        dataset = super()._precompute_ref_logps(*given)
        self.reference_seconds = time.process_time() - begun
        return dataset


@contextmanager
def quiet() -> Iterator[Path]:
    """A folder for what a trainer writes; its warnings are not shown."""
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings(action="ignore"):
        yield Path(out)


def usual(rows: int, setting: Setting, steps: int) -> dict[str, Any]:
    """Arguments of both trainers."""
    return {
        "per_device_train_batch_size": setting.split,
        "gradient_accumulation_steps": rows // setting.split,
        "max_steps": steps,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "gradient_checkpointing": setting.checkpointing,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": SEED,
    }


def length(group: TokenGroup) -> int:
    """Tokens of the longer row of a pair."""
    return len(group.prompt) + group.longest


def trl_dpo(folder: Path, load: Offline, groups: Sequence[TokenGroup], setting: Setting) -> Timed:
    """One update: the reference pass, then the steps on the pairs of eva's plan."""
    steps = plan(load, groups)
    by_length = sorted(range(len(groups)), key=lambda i: -length(groups[i]))
    place = {i: k for k, i in enumerate(by_length if setting.is_sorted else range(len(groups)))}
    rows = [
        {"prompt": "", "chosen": "", "rejected": ""}
        | dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), _ids(group), strict=True))
        for group in (groups[i] for i in place)
    ]
    models = [MODEL.from_pretrained(folder, dtype=torch.float32)]
    models += [] if setting.precompute else [MODEL.from_pretrained(folder, dtype=torch.float32)]
    clock = Clock()
    with quiet() as out:
        begun = time.process_time()
        trainer = OnTokens(
            models[0],
            ref_model=None if setting.precompute else models[1],
            args=TRL.DPOConfig(
                output_dir=str(out),
                beta=BETA,
                max_length=None,
                precompute_ref_log_probs=setting.precompute,
                **usual(load.batch, setting, load.steps),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=TOKENIZER.from_pretrained(folder),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        places = [[place[int(i)] for i in step] for step in steps]
        order = map(sorted, places) if setting.is_sorted else places
        trainer.order = [*chain.from_iterable(order)]
        loss = trainer.train().training_loss
    seconds = trainer.reference_seconds + clock.ended - clock.begun
    setup = clock.begun - begun - trainer.reference_seconds
    return Timed(seconds, pair_tokens(groups, steps), loss, setup)


def _ids(group: TokenGroup) -> tuple[list[int], ...]:
    return tuple(map(list, (group.prompt, *group.responses)))


def trl_rloo(folder: Path, case: Case, load: Online, kl: float, setting: Setting) -> Timed:
    """Samples and learns, mini-batch by mini-batch; tokens are those that were sampled."""
    prompts = [
        {"prompt": [message.model_dump() for message in prompt.messages]}
        for prompt in asked(case, load)
    ]
    sampled = [0]

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        sampled[0] += sum(map(len, completion_ids))
        return [reward(ids) for ids in completion_ids]

    clock = Clock()
    model = MODEL.from_pretrained(folder, dtype=torch.float32)
    with quiet() as out:
        begun = time.process_time()
        trainer = TRL.RLOOTrainer(
            model,
            reward_funcs=rewards,
            args=TRL.RLOOConfig(
                output_dir=str(out),
                beta=kl,
                num_generations=GENERATIONS,
                max_completion_length=load.max_tokens,
                cache_implementation=setting.cache,
                shuffle_dataset=False,
                **usual(load.prompts * GENERATIONS, setting, load.steps),
            ),
            train_dataset=Dataset.from_list(prompts),
            processing_class=TOKENIZER.from_pretrained(folder, padding_side="left"),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
    return Timed(clock.ended - clock.begun, sampled[0], loss, clock.begun - begun)
