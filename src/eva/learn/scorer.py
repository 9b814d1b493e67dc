"""A causal language model that gives log-probabilities of responses instead of logits.

The output head is applied to the hidden states that predict response tokens and to nothing else,
and a prompt can be encoded once for all its responses: its keys and values are handed to them
through the model's own cache, and gradients flow back the same way.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from eva.learn.batches import Batch
from eva.learn.logprobs import Head, token_logprobs

TOLERANCE = 1e-3
"""Largest difference between the model's own logits and those of its `Head`, relative to theirs."""


@dataclass(frozen=True)
class Inputs:
    """A `Batch` as tensors on the model's device."""

    inputs_B_T: Tensor
    predicts_B_T: Tensor
    tokens_N: Tensor
    mask_B_R: Tensor
    group_B: Tensor
    prompts_M_P: Tensor | None
    prompt_mask_M_P: Tensor | None


def on_device(batch: Batch, device: torch.device) -> Inputs:
    """The arrays of a batch as tensors."""
    fields: dict[str, Any] = {
        name: None if array is None else torch.from_numpy(array).to(device)
        for name, array in vars(batch).items()
    }
    return Inputs(**fields)


class Scorer(nn.Module):
    """What is trained: the model, asked for log-probabilities. Processes share this module."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self._dtype = dtype
        # What accelerate asks a model for when it shards it by layers.
        self._no_split_modules = model._no_split_modules
        self._cap = model.config.to_dict().get("final_logit_softcapping")
        self._is_apart = _comes_apart(model) and self._head_agrees()

    def forward(self, batch: Inputs) -> Tensor:
        """Log pi(y_t | x, y_<t) of all response tokens, row by row; shape [N], float32."""
        if batch.prompts_M_P is None:
            hidden_N_H = self._hidden(batch.inputs_B_T)[batch.predicts_B_T]
        else:
            hidden_N_H = self._after_prompts(batch)[batch.predicts_B_T]
        if self._is_apart:
            return token_logprobs(hidden_N_H, batch.tokens_N, self._head(self._dtype))
        return _log_softmax(hidden_N_H, batch.tokens_N)

    def _after_prompts(self, batch: Inputs) -> Tensor:
        """The hidden states of rows whose prompts are encoded once, shape [B, T, H]."""
        assert batch.prompts_M_P is not None
        assert batch.prompt_mask_M_P is not None
        mask_M_P = batch.prompt_mask_M_P
        length_M = mask_M_P.sum(1)
        cache = DynamicCache(config=self.model.config)
        self._hidden(
            batch.prompts_M_P,
            attention_mask=mask_M_P,
            position_ids=(mask_M_P.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_select_indices(batch.group_B)
        rows, width = batch.inputs_B_T.shape
        mask_B_T = mask_M_P.new_ones(rows, width)
        position_B_T = length_M[batch.group_B, None] + torch.arange(width, device=mask_M_P.device)
        return self._hidden(
            batch.inputs_B_T,
            attention_mask=torch.cat([mask_M_P[batch.group_B], mask_B_T], 1),
            position_ids=position_B_T,
            past_key_values=cache,
            use_cache=True,
        )

    def _hidden(self, ids_B_T: Tensor, **inputs: Any) -> Tensor:
        """The last hidden states, or the logits of a model whose head is not a plain one.

        Rows are padded on the right, where causal attention never looks: the mask is all ones.
        """
        device, dtype = ids_B_T.device.type, self._dtype
        usual = {"attention_mask": torch.ones_like(ids_B_T), "use_cache": False}
        called: Any = self.model.base_model if self._is_apart else self.model
        # A cache would keep narrow copies of all weights for a pass that uses each of them once.
        narrow = torch.autocast(
            device, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False
        )
        with narrow:
            # Logits and last hidden states both come first.
            found: Tensor = called(input_ids=ids_B_T, **(usual | inputs))[0]
        return found

    def _head(self, dtype: torch.dtype | None) -> Head:
        layer: Any = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]  # theirs
        return Head(layer.weight, layer.bias, self._cap, dtype)

    @torch.no_grad()
    def _head_agrees(self) -> bool:
        """Whether hidden states and `Head` give the model's own logits; some models scale them."""
        ids = torch.arange(2, device=self.model.device)[None]
        asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        own = self.model(**asked).logits.float()
        inner: Any = self.model.base_model
        hidden: Tensor = inner(**asked)[0]
        ours = self._head(None).logits(hidden[0])
        return bool((own[0] - ours).abs().max() <= TOLERANCE * own.abs().max())


def sharing_window(model: PreTrainedModel) -> float:
    """Positions up to which responses can go on from an encoded prompt.

    Without bound for plain attention, up to where a window begins to slide, and 0 for a model that
    remembers otherwise.
    """
    layers = DynamicCache(config=model.config).layers
    kinds = {type(layer) for layer in layers}
    if not kinds or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return 0.0
    return min(
        (layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)),
        default=math.inf,
    )


def _comes_apart(model: PreTrainedModel) -> bool:
    """Whether the model is a body with hidden states and a linear output head."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # theirs
    return model.base_model is not model and isinstance(head, nn.Linear)


def _log_softmax(logits_N_V: Tensor, tokens_N: Tensor) -> Tensor:
    """The log-probability of each token, shape [N], from logits that exist already."""
    wide = logits_N_V.to(torch.promote_types(logits_N_V.dtype, torch.float32))
    return wide.log_softmax(1).gather(1, tokens_N[:, None])[:, 0]
