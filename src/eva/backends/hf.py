"""A causal language model in Hugging Face format, sampled in this process.

A prompt's randomness is its own (`seeds.rng(seed, prompt.id)`), so its answers do not depend on the
prompts beside it, on their order or on `rows`. That is exact as far as the model's arithmetic is:
in float32 on a CPU the shape of a batch moves logits by about 1e-6, which changes one token in
about a million. In bfloat16, or on CUDA, where kernels are chosen by shape, it moves them by up to
1e-2: if the batches are cut otherwise, the same seed soon gives other answers, from the same
distribution.

Only temperature and top_p shape that distribution: a penalty or a top_k that a model keeps in its
generation_config.json is not applied.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eva import seeds
from eva.backends.chat import among_errors, encoded, end_tokens, load_size
from eva.backends.load import context, load_policy, load_tokenizer
from eva.backends.memory import batches, give_back_memory
from eva.backends.sampling import Sampler, Written
from eva.errors import BackEndError
from eva.parts.policies import HfPolicy
from eva.protocols import Gate, Policy
from eva.records import Checkpoint, Message, Prompt, Response, Sampling

PREFILL_TOKENS = 2**16
"""Prompt tokens, padding included, that are encoded side by side; bounds the activations."""
DRAWN = 32
"""Steps whose random numbers are drawn in one go."""


@contextmanager
def open_policy(checkpoint: Checkpoint, config: HfPolicy) -> Iterator[Policy]:
    """Open a checkpoint as a policy; leaving the context gives the memory back.

    Args:
        checkpoint: Its `uri` is a folder or a hub id.
        config: Device, dtype, revision and how many responses are sampled side by side. Its `model`
            is not read.

    Raises:
        BackEndError: The checkpoint is no causal language model with a chat template, or the device
            is not there; later: the model gives no numbers.
    """
    tokenizer = load_tokenizer(checkpoint.uri, config.revision)
    policy = Opened(load_policy(checkpoint.uri, config), tokenizer, config.rows)
    try:
        yield policy
    finally:
        policy.close()


def context_gate(
    model: str, max_tokens: int, revision: str | None = None, limit: int | None = None
) -> Gate:
    """Says why `model` cannot answer a chat with `max_tokens` new tokens; loads no weights.

    Prompt and answer may have as many tokens as the model can see, or a lower `limit`.

    Raises:
        BackEndError: `model` has no config, or no tokenizer with a chat template.
    """
    tokenizer = load_tokenizer(model, revision)
    size = load_size(model, revision, limit)

    def gate(messages: Sequence[Message]) -> str | None:
        found = encoded(messages, tokenizer, size, max_tokens)
        return found if isinstance(found, str) else None

    return gate


class Opened:
    """A loaded model as a policy, until it is closed."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int
    ) -> None:
        self._tokenizer = tokenizer
        self._rows = rows
        self._context = context(model.config)
        self._ends = end_tokens(model.generation_config, tokenizer)
        self._sampler: Sampler | None = Sampler(model, self._ends)

    def close(self) -> None:
        """Give the memory back, even if somebody still holds this policy."""
        self._sampler = None
        give_back_memory()

    def __call__(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer: n responses for each prompt, in the order of the prompts."""
        found = [self.encoded(prompt.messages, sampling.max_tokens) for prompt in prompts]
        asked = [
            (one, p) for one, p in zip(found, prompts, strict=True) if not isinstance(one, str)
        ]
        draws = [seeds.child(seed, prompt.id) for _, prompt in asked]
        groups = self.answers([ids for ids, _ in asked], n, sampling=sampling, draws=draws)
        return among_errors(found, n, groups)

    def room(self, messages: Sequence[Message]) -> int | None:
        """New tokens that the context holds beside a chat, at least 1; None if it has no bound."""
        ids = self.encoded(messages, 1)
        if self._context is None or isinstance(ids, str):
            return None
        return max(1, self._context - len(ids))

    def encoded(self, messages: Sequence[Message], max_tokens: int) -> list[int] | str:
        """The token ids of a chat that waits for an answer, or why it cannot be answered."""
        return encoded(messages, self._tokenizer, self._context, max_tokens)

    def answers(
        self, ids: Sequence[list[int]], n: int, *, sampling: Sampling, draws: Sequence[int]
    ) -> list[list[Response]]:
        """Answer encoded prompts, n responses each; `draws` are the seeds of the prompts."""
        answers: list[list[Response]] = [[] for _ in ids]
        lengths = [len(tokens) for tokens in ids]
        for first in range(0, n, self._rows):
            share = range(first, min(n, first + self._rows))
            for batch in batches(lengths, PREFILL_TOKENS, self._rows // len(share)):
                uniforms = _uniforms([draws[i] for i in batch], n, share)
                written = self._sample([ids[i] for i in batch], len(share), sampling, uniforms)
                responses = self._responses(written)
                for place, i in enumerate(batch):
                    answers[i] += responses[place * len(share) : (place + 1) * len(share)]
        return answers

    def _sample(
        self, ids: list[list[int]], n: int, sampling: Sampling, uniforms: Iterator[Tensor]
    ) -> list[Written]:
        if self._sampler is None:
            raise BackEndError(
                "expected an open policy; this one was closed when its context was left; "
                "ask it inside the with block of open_policy"
            )
        try:
            return self._sampler(ids, n, sampling=sampling, uniforms=uniforms)
        except torch.OutOfMemoryError as error:
            raise BackEndError(
                f"the memory of the device is too small for {len(ids) * n} responses side by side; "
                f"set policy.rows below {self._rows}"
            ) from error

    def _responses(self, written: list[Written]) -> list[Response]:
        if not all(math.isfinite(sum(row.logprobs)) for row in written):
            raise BackEndError(
                "expected finite logits; the model gave NaN or infinity; its weights are damaged, "
                "or they overflow in this dtype: try another policy.dtype"
            )
        texts = self._tokenizer.batch_decode(
            [row.tokens for row in written], skip_special_tokens=True
        )
        return [
            Response(
                text=text,
                finish="stop" if row.tokens[-1] in self._ends else "length",
                tokens=tuple(row.tokens),
                logprobs=tuple(row.logprobs),
            )
            for text, row in zip(texts, written, strict=True)
        ]


def _uniforms(draws: Sequence[int], n: int, share: range) -> Iterator[Tensor]:
    """For each step, numbers in [0, 1) of shape [len(draws) * len(share)], float64.

    Number (t, g) of a prompt belongs to token t of its response g. It depends on the prompt's
    seed and n, neither on the batch nor on how many steps are taken.
    """
    generators = [np.random.Generator(np.random.PCG64(draw)) for draw in draws]
    while True:
        drawn = [rng.random((DRAWN, n))[:, share.start : share.stop] for rng in generators]
        yield from torch.from_numpy(np.concatenate(drawn, axis=1))
