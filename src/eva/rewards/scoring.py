"""Token rows through a classifier: batches of like length, one number each.

Sizes: B rows side by side, T tokens with padding, N rows in all.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from eva.backends.memory import batches
from eva.errors import BackEndError
from eva.protocols import Floats
from eva.rewards.missing import Missing

Row: TypeAlias = Sequence[int]
"""The token ids of one text."""
Head: TypeAlias = Callable[[Sequence[Row]], Tensor]
"""Reads rows side by side and gives one number for each, shape [B]."""


def scores(rows: Sequence[Row | Missing], head: Head, batch_tokens: int) -> Floats:
    """The score of each row; NaN where there is none to read.

    Equal rows are read once: batches of another shape round otherwise, and equal responses must
    tie.

    Args:
        rows: Token ids, or why there are none.
        head: What reads them.
        batch_tokens: Upper bound on padded tokens side by side; a longer row goes alone.

    Returns:
        Shape [N], float64.

    Raises:
        BackEndError: The memory does not suffice, or a score is no finite number.
    """
    distinct = list(dict.fromkeys(tuple(row) for row in rows if not isinstance(row, Missing)))
    found: dict[tuple[int, ...], float] = {}
    for batch in batches([len(row) for row in distinct], batch_tokens):
        side_by_side = [distinct[i] for i in batch]
        found.update(zip(side_by_side, _read(side_by_side, head), strict=True))
    if not np.isfinite(list(found.values())).all():
        raise BackEndError(
            "expected finite scores; the reward model gave NaN or infinity; its weights are "
            "damaged, or they overflow in this dtype: try another reward.dtype"
        )
    return np.array([np.nan if isinstance(row, Missing) else found[tuple(row)] for row in rows])


def _read(rows: Sequence[Row], head: Head) -> list[float]:
    try:
        with torch.inference_mode():
            read: list[float] = head(rows).double().tolist()
    except torch.OutOfMemoryError as error:
        raise BackEndError(
            f"the memory of the device is too small for the reward model on {len(rows)} texts of "
            f"up to {max(map(len, rows))} tokens; set a lower reward.batch_tokens"
        ) from error
    return read


def padded(rows: Sequence[Row], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids with padding on the right, and the mask that is 1 for real ones; shape [B, T]."""
    longest = max(map(len, rows))
    ids_B_T = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask_B_T = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids_B_T.to(device), mask_B_T.to(device)
