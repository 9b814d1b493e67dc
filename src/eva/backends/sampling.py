"""A batch of responses, token by token: prefill, pick, drop the finished, decode.

Each prompt is encoded once for its n responses. A finished response leaves the batch, so that a
step costs as much as there are responses still being written. Sizes: P prompts, R rows (responses
side by side), T positions.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eva.backends.cache import RoomyCache
from eva.backends.pick import pick
from eva.errors import BackEndError
from eva.records import Sampling

SLACK = 1 / 16
"""Share of finished rows that a batch carries along before they make way. On the playground's load
0 to 1/8 are equal within 3 % and 1/4 is 5 % slower, never dropping twice as slow; with many layers
on a GPU each compaction is hundreds of kernel launches, so it is not done for a single row."""


@dataclass(frozen=True, slots=True)
class Written:
    """One response as sampled."""

    tokens: list[int]
    """Token ids; the last one is an end token unless the response was cut."""
    logprobs: list[float]
    """Natural log-probability of each token under the model's own softmax, rounded to 1e-5."""


class Rows:
    """The responses of one batch: those still being written, and what is written so far."""

    def __init__(self, mask_R_T: Tensor, ends: Tensor, max_tokens: int) -> None:
        rows, device = len(mask_R_T), mask_R_T.device
        self._ends = ends
        self._width = mask_R_T.shape[1]
        self._step = 0
        # Of all responses, in the order of the prompts.
        self._tokens = torch.zeros(rows, max_tokens, dtype=torch.int64, device=device)
        self._logprobs = torch.zeros(rows, max_tokens, device=device)
        self._lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        # Of the rows of the batch.
        self.response_R = torch.arange(rows, device=device)
        """The response that each row writes."""
        self._finished_R = torch.zeros(rows, dtype=torch.bool, device=device)
        self._token_R = torch.zeros(rows, dtype=torch.int64, device=device)
        self._position_R = mask_R_T.sum(-1)
        self._mask_R_T = torch.cat([mask_R_T, mask_R_T.new_ones(rows, max_tokens)], 1)

    def write(self, token_R: Tensor, logprob_R: Tensor) -> None:
        """Append one token to each response; a finished one that is still here stays as it is."""
        self._tokens[self.response_R, self._step] = token_R
        self._logprobs[self.response_R, self._step] = logprob_R
        self._step += 1
        self._lengths[self.response_R[~self._finished_R]] = self._step
        self._finished_R |= torch.isin(token_R, self._ends)
        self._finished_R |= self._step == self._tokens.shape[1]
        self._token_R = token_R

    def drop_finished(self, cache: RoomyCache) -> bool:
        """Let the last living rows take the places of the finished; False if none is left."""
        rows = len(self._finished_R)
        living = rows - int(self._finished_R.sum())
        if living == 0 or rows - living < SLACK * rows:
            return living > 0
        holes = self._finished_R[:living].nonzero()[:, 0]
        movers = (~self._finished_R[living:]).nonzero()[:, 0] + living
        index_R = torch.arange(living, device=holes.device).index_copy(0, holes, movers)
        cache.keep(movers, holes, index_R)
        self.response_R = self.response_R[index_R]
        self._finished_R = self._finished_R[index_R]
        self._token_R = self._token_R[index_R]
        self._position_R = self._position_R[index_R]
        self._mask_R_T = self._mask_R_T[index_R]
        return True

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the model reads next: ids [R, 1], mask [R, T] and position [R, 1]."""
        position_R = self._position_R + self._step - 1
        mask_R_T = self._mask_R_T[:, : self._width + self._step]
        return self._token_R[:, None], mask_R_T, position_R[:, None]

    def written(self) -> list[Written]:
        """All responses, in the order of the prompts."""
        tokens = self._tokens[:, : self._step].tolist()
        logprobs = self._logprobs[:, : self._step].double().round(decimals=5).tolist()
        return [
            Written(tokens[i][:length], logprobs[i][:length])
            for i, length in enumerate(self._lengths.tolist())
        ]


class Sampler:
    """A model, the tokens that end its answers, and the memory that its batches share."""

    def __init__(self, model: PreTrainedModel, ends: Sequence[int]) -> None:
        self._arguments, self._cache_name = _arguments(model)
        self._model = model
        self._prepare_inputs: Any = model.prepare_inputs_for_generation  # PreTrainedModel hides it
        self._ends = torch.tensor(ends, dtype=torch.int64, device=model.device)
        self._cache = RoomyCache(model.config)

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        sampling: Sampling,
        uniforms: Iterator[Tensor],
    ) -> list[Written]:
        """The n responses to each prompt, prompt by prompt.

        Args:
            prompts: Token ids of P prompts.
            n: Responses to each prompt.
            sampling: How tokens are drawn.
            uniforms: For each step, numbers in [0, 1) of shape [P * n], one for each response.
        """
        logits, rows = self._prefill(prompts, n, sampling.max_tokens)
        while True:
            uniform_R = next(uniforms).to(self._model.device)[rows.response_R]
            tokens_R, logprobs_R = pick(logits, uniform_R, sampling)
            rows.write(tokens_R, logprobs_R)
            if not rows.drop_finished(self._cache):
                return rows.written()
            logits = self._decode(rows)

    def _prefill(
        self, prompts: Sequence[Sequence[int]], n: int, max_tokens: int
    ) -> tuple[Tensor, Rows]:
        """Encode each prompt once; the logits of n rows for each, and these rows."""
        ids_P_T, mask_P_T = _left_padded(prompts, self._model.device)
        self._cache.begin(limit=ids_P_T.shape[1] + max_tokens)
        position_P_T = (mask_P_T.cumsum(-1) - 1).clamp(min=0)
        logits_P_V = self._forward(ids_P_T, mask_P_T, position_P_T, is_first=True)
        index_R = torch.arange(len(prompts), device=ids_P_T.device).repeat_interleave(n)
        self._cache.repeat(n, index_R)
        return logits_P_V[index_R], Rows(mask_P_T[index_R], self._ends, max_tokens)

    def _decode(self, rows: Rows) -> Tensor:
        """The logits after the token that each row wrote last, shape [R, V]."""
        ids_R_1, mask_R_T, position_R_1 = rows.inputs()
        return self._forward(ids_R_1, mask_R_T, position_R_1)

    def _forward(
        self, ids: Tensor, mask: Tensor, position: Tensor, *, is_first: bool = False
    ) -> Tensor:
        """The logits of the last position, shape [R, V]."""
        optional = {"position_ids": position, "logits_to_keep": 1}
        # What `generate` calls too: some architectures bend their inputs there.
        inputs: dict[str, object] = self._prepare_inputs(
            ids,
            attention_mask=mask,
            use_cache=True,
            is_first_iteration=is_first,
            **{self._cache_name: self._cache.current},
            **{name: optional[name] for name in optional if name in self._arguments},
        )
        logits: Tensor = self._model(**inputs).logits
        return logits[:, -1]


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask (1 for a token, 0 for padding), both of shape [P, T]."""
    width = max(map(len, prompts))
    ids_P_T = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    lengths_P = torch.tensor([len(prompt) for prompt in prompts])
    mask_P_T = (torch.arange(width) >= width - lengths_P[:, None]).long()
    return ids_P_T.to(device), mask_P_T.to(device)


def _arguments(model: PreTrainedModel) -> tuple[frozenset[str], str]:
    """The arguments of the model's forward, and the name of the one that takes the cache.

    Some architectures take no position ids (ALiBi) or call their cache otherwise (Mamba), and
    `generate` too asks the signature.
    """
    names = frozenset(inspect.signature(model.forward).parameters)
    for cache_name in ("past_key_values", "cache_params"):
        if cache_name in names:
            return names, cache_name
    raise BackEndError(
        f"{type(model).__name__} keeps no cache that the sampler knows (past_key_values or "
        "cache_params); serve the model elsewhere and use a policy of another kind"
    )
