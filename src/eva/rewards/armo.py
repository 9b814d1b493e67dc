"""ArmoRM's own head on a Llama: many objectives, weighted by a gate that reads the prompt.

Source: Haoxiang Wang et al., "Interpretable Preferences via Multi-Objective Reward Modeling and
Mixture-of-Experts", https://arxiv.org/abs/2406.12845, and the model code that is published with
RLHFlow/ArmoRM-Llama3-8B-v0.1. With h_y the last layer at the last token of the chat, h_x that at
the end of the prompt, where the turn before the last answer ends::

    reward = sum_k  gate(h_x)_k  (W h_y D)_k
    gate(h) = scale * softmax(MLP(h) / temperature)

W gives the objectives, D takes the length out of them, MLP has ReLU between its layers.

The published weights (16 GB) are not part of any test: names and formula are those of the published
code, and a small model of that shape is tested against the formula. The sizes are read from the
keys `num_objectives`, `gating_temperature`, `gating_hidden_dim` and `gating_n_hidden` of
config.json; where one is absent its default is that of the published code. Our choice: the head is
computed in float32 whatever the dtype of the Llama is, so scores differ by rounding from those of
the published code in bfloat16.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel, PreTrainedTokenizerBase

from eva.backends.load import explained, no_bars, placed
from eva.parts.rewards import ClassifierReward
from eva.rewards.scoring import Head, Row, padded
from eva.rewards.weights import check_complete

HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
"""Where an answer begins; the gate reads the first of these tokens."""
ARMO = "config.json and the weights of an ArmoRM"
"""What is expected of the model."""


class Gate(nn.Module):
    """The weight of each objective, from the state at the end of the prompt."""

    def __init__(self, width: int, hidden: int, layers: int, objectives: int) -> None:
        super().__init__()
        widths = [width, *[hidden] * layers, objectives]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.logit_scale = nn.Parameter(torch.ones(1))

    def forward(self, h_B_D: Tensor, temperature: float) -> Tensor:
        """Weights of shape [B, K]; they add up to `logit_scale`."""
        x: Tensor = self.layers[0](h_B_D)
        for layer in self.layers[1:]:
            x = layer(torch.relu(x))
        return self.logit_scale * torch.softmax(x / temperature, dim=-1)


class Armo(LlamaPreTrainedModel):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """A Llama with that head; the names of its parts are those of the published weights."""

    _keep_in_fp32_modules_strict = {"regression_layer", "gating", "reward_transform_matrix"}  # noqa: RUF012  # theirs

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        fields = config.to_dict()
        objectives = int(fields.get("num_objectives", 19))
        self.temperature = float(fields.get("gating_temperature", 10))
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(objectives))
        self.gating = Gate(
            config.hidden_size,
            int(fields.get("gating_hidden_dim", 1024)),
            int(fields.get("gating_n_hidden", 3)),
            objectives,
        )
        self.post_init()  # type: ignore[no-untyped-call]  # theirs

    def forward(self, ids_B_T: Tensor, mask_B_T: Tensor, gate_B: Tensor, last_B: Tensor) -> Tensor:
        """Rewards of chats, shape [B].

        Args:
            ids_B_T: Token ids, padded on the right.
            mask_B_T: 1 for real tokens, 0 for padding.
            gate_B: The place that the gate reads.
            last_B: The place of the last real token.
        """
        read = self.model(input_ids=ids_B_T, attention_mask=mask_B_T, use_cache=False)
        h_B_T_D: Tensor = read.last_hidden_state
        row_B = torch.arange(len(ids_B_T), device=h_B_T_D.device)
        objectives_B_K = self.regression_layer(h_B_T_D[row_B, last_B].float())
        weights_B_K = self.gating(h_B_T_D[row_B, gate_B].float(), self.temperature)
        reward_B: Tensor = (weights_B_K * (objectives_B_K @ self.reward_transform_matrix)).sum(
            dim=-1
        )
        return reward_B


def load_armo(part: ClassifierReward) -> Armo:
    """The model in evaluation mode, on the device and in the dtype of the part.

    Raises:
        BackEndError: The weights are not those of an ArmoRM, or there is no such device.
    """
    device, dtype = placed(part.device, part.dtype, "reward")
    with explained(part.model, ARMO), no_bars():
        # The types of transformers 5.23 leave out the pair that output_loading_info returns.
        loaded: Any = Armo.from_pretrained(
            part.model,
            revision=part.revision or "main",
            dtype=dtype,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
        )
    advice = "set reward.head to logit for a classifier of another shape"
    check_complete(loaded[1], part.model, "the weights of an ArmoRM", advice, strict=True)
    model: Armo = loaded[0]
    model.eval()  # type: ignore[no-untyped-call]  # theirs
    return model.to(device)  # type: ignore[no-any-return, arg-type]  # `to` is decorated


def header_of(tokenizer: PreTrainedTokenizerBase) -> Row:
    """The tokens by which Llama 3 begins an answer."""
    ids: list[int] = tokenizer(HEADER, add_special_tokens=False)["input_ids"]
    return ids


def gate_place(row: Row, header: Row) -> int | None:
    """Where the last `header` in a chat begins; None if there is none.

    Examples:
        >>> gate_place([7, 8, 5, 7, 8, 6], header=[7, 8])
        3
    """
    size, wanted = len(header), tuple(header)
    starts = range(len(row) - size, -1, -1)
    return next(
        (i for i in starts if row[i] == header[0] and tuple(row[i : i + size]) == wanted), None
    )


def armo_head(model: Armo, header: Row) -> Head:
    """The reward of chats, each of which holds the `header`."""

    def head(rows: Sequence[Row]) -> Tensor:
        ids_B_T, mask_B_T = padded(rows, 0, model.device)
        gate_B = torch.tensor([gate_place(row, header) for row in rows], device=model.device)
        last_B = torch.tensor([len(row) - 1 for row in rows], device=model.device)
        found: Tensor = model(ids_B_T, mask_B_T, gate_B, last_B)
        return found

    return head
