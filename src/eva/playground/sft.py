"""theta_0: the playground's first policy, fine-tuned on demonstrations of mixed quality.

A plain loop: each step draws fresh demonstrations and takes one AdamW step on the cross-entropy of
their answers. The corpus holds mostly short prompts and flawed answers, so theta_0 knows the
language and leaves room to improve, above all on hard prompts. All settings are our choice.
"""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2LMHeadModel

from eva import seeds
from eva.errors import RecipeError, RunDirError
from eva.playground.domain import Constraints, Digits, render
from eva.playground.policy import ANSWER, BOS, EOS, VOCABULARY, make_model, make_tokenizer
from eva.playground.tasks import CORPORA, Mix, draw_demonstration
from eva.protocols import Floats, Progress

log = logging.getLogger(__name__)

PEAK = 2e-3
"""The learning rate after the warm-up."""
WARMUP = 100
"""Steps over which the learning rate rises."""
FLOOR = 0.05
"""The learning rate at the end, as a share of `PEAK`."""
CLIP = 1.0
"""Bound on the gradient's norm."""
EVERY = 100
"""Steps that one line of the log averages."""
IGNORED = -100
"""The label of a token that is not learnt."""


def sft(
    out: Path,
    *,
    steps: int = 8000,
    batch: int = 64,
    seed: int = 0,
    corpus: str = "short",
    progress: Progress | None = None,
) -> Floats:
    """Train theta_0 and write it to `out` in Hugging Face format; the same seed, the same bytes.

    The bytes are the same on one kind of machine with one version of torch. Training takes one
    thread: at this size more of them lose time.

    Args:
        out: A folder that is empty or does not exist.
        steps: Optimiser steps.
        batch: Demonstrations in a step.
        seed: Names the first weights and the demonstrations.
        corpus: A key of `tasks.CORPORA`: the distribution of the demonstrations.
        progress: Told "sft", the steps done and all steps.

    Returns:
        The loss of each step: shape [steps], in nats per token.

    Raises:
        RunDirError: `out` holds files already.
        RecipeError: There is no such corpus.
    """
    if corpus not in CORPORA:
        raise RecipeError(f"there is no corpus {corpus!r}; known: {', '.join(CORPORA)}")
    if out.exists() and any(out.iterdir()):
        raise RunDirError(f"{out} is not empty; give a new folder for the checkpoint")
    model = make_model(seeds.child(seed, "playground", "sft", "weights"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        losses = _train(model, CORPORA[corpus], steps, batch, seed, progress)
    finally:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    _write_model(model, out)
    _write_log(losses, out / "sft.jsonl")
    return losses


def rate(step: int, steps: int) -> float:
    """The learning rate of a step, as a share of the peak: linear warm-up, cosine to the floor.

    Args:
        step: The step, counted from 0.
        steps: All steps.
    """
    if step < WARMUP:
        return (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def encode(constraints: Constraints, y: Digits) -> tuple[list[int], int]:
    """The tokens of a demonstration as the chat template renders it, and how many are the prompt's.

    A dictionary instead of the tokenizer, which would take as long as the training step itself.
    """
    prompt = [BOS, *render(constraints).split(), ANSWER]
    return [VOCABULARY[token] for token in (*prompt, *map(str, y), EOS)], len(prompt)


def _train(
    model: GPT2LMHeadModel,
    corpus: Mix,
    steps: int,
    batch: int,
    seed: int,
    progress: Progress | None,
) -> Floats:
    rng = seeds.rng(seed, "playground", "sft", "corpus")
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps))
    losses = np.empty(steps)
    model.train()
    for step in range(steps):
        loss = _loss(model, [encode(*draw_demonstration(rng, corpus)) for _ in range(batch)])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        losses[step] = loss.item()
        if progress is not None:
            progress("sft", step + 1, steps)
    log.info("sft: %d steps, last loss %.4f", steps, losses[-EVERY:].mean())
    return losses


def _loss(model: GPT2LMHeadModel, demonstrations: Sequence[tuple[list[int], int]]) -> torch.Tensor:
    """The mean cross-entropy of the answers' tokens; a scalar."""
    rows = [torch.tensor(tokens) for tokens, _ in demonstrations]
    # Rows are filled on the right, where no token that is learnt looks, so no mask is needed;
    # filled with <pad>, the model would still ask for one.
    tokens_B_T = pad_sequence(rows, batch_first=True, padding_value=VOCABULARY[EOS])
    labels_B_T = tokens_B_T.clone()
    for row, (tokens, prompt) in enumerate(demonstrations):
        labels_B_T[row, :prompt] = IGNORED
        labels_B_T[row, len(tokens) :] = IGNORED
    logits_B_T_V = model(tokens_B_T[:, :-1], use_cache=False).logits
    return cross_entropy(
        logits_B_T_V.flatten(0, 1), labels_B_T[:, 1:].flatten(), ignore_index=IGNORED
    )


def _write_model(model: GPT2LMHeadModel, out: Path) -> None:
    """Weights, configuration and tokenizer, as `from_pretrained` reads them."""
    # Not model.save_pretrained, which draws a progress bar.
    save_file(model.state_dict(), out / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    make_tokenizer().save_pretrained(out)


def _write_log(losses: Floats, path: Path) -> None:
    """One line for every `EVERY` steps: the last of them and their mean loss."""
    means = (
        {"step": min(start + EVERY, len(losses)), "loss": round(losses[start:][:EVERY].mean(), 4)}
        for start in range(0, len(losses), EVERY)
    )
    path.write_text("".join(json.dumps(mean) + "\n" for mean in means))
