"""A sequence classifier of transformers as a head: one of its outputs, with or without padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from eva.backends.load import explained, heed_soft_caps, no_bars, placed
from eva.errors import RecipeError
from eva.parts.rewards import ClassifierReward, PairwiseReward
from eva.rewards.scoring import Head, Row, padded
from eva.rewards.weights import check_complete

CLASSIFIER = "config.json and the weights of a sequence classifier"
"""What is expected of a reward model."""


def load_classifier(
    part: ClassifierReward | PairwiseReward, uri: str, *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The classifier at `uri` in evaluation mode, on the device and in the dtype of the part.

    Raises:
        BackEndError: There is no sequence classifier at `uri`, it lacks some weights, or there is
            no such device.
    """
    device, dtype = placed(part.device, part.dtype, "reward")
    with explained(uri, CLASSIFIER), no_bars():
        # The types of transformers 5.23 leave out the pair that output_loading_info returns.
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            uri,
            revision=part.revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
        )
    advice = "give a reward model, not one that writes text; for ArmoRM set reward.head to armo"
    check_complete(loaded[1], uri, "all weights of a sequence classifier", advice, strict=False)
    model: PreTrainedModel = loaded[0]
    heed_soft_caps(model)
    model.eval()  # type: ignore[no-untyped-call]  # theirs
    return model.to(device)  # type: ignore[no-any-return, arg-type]  # `to` is decorated


def logit_head(model: PreTrainedModel, index: int) -> Head:
    """Output number `index` of a classifier.

    A decoder gives the output at the last token that is not `pad_token_id` of its config. Padding
    with that very token leaves the place where it is without padding, even for a model whose chats
    end with it. A config that names none means the last token; then a batch is padded with a token
    that ends none of its rows.

    Raises:
        RecipeError: The classifier has no output of that number.
    """
    outputs = int(model.config.num_labels or 0)
    if index >= outputs:
        raise RecipeError(
            f"reward.index is {index}; the classifier has {outputs} outputs, numbered from 0; "
            "give one of them"
        )
    settings = model.config.get_text_config()
    named: int | None = settings.pad_token_id

    def head(rows: Sequence[Row]) -> Tensor:
        pad = _ends_none(rows) if named is None else named
        settings.pad_token_id = pad
        ids_B_T, mask_B_T = padded(rows, pad, model.device)
        logits_B_L: Tensor = model(input_ids=ids_B_T, attention_mask=mask_B_T).logits
        return logits_B_L.reshape(len(rows), -1)[:, index].to(torch.float32)

    return head


def _ends_none(rows: Sequence[Row]) -> int:
    last = {row[-1] for row in rows}
    return next(token for token in range(len(last) + 1) if token not in last)
