"""The memory of a device: batches that fit it, and what is given back."""

import gc
from collections.abc import Iterator, Sequence

import torch


def batches(lengths: Sequence[int], tokens: int, rows: int | None = None) -> Iterator[list[int]]:
    """Positions of rows that are read side by side.

    Like lengths go together, for little padding; the longest go first, so that memory that does not
    suffice shows at once and what is set aside fits all later batches.

    Args:
        lengths: Tokens of each row.
        tokens: Upper bound on padded tokens in a batch; a longer row goes alone.
        rows: Upper bound on rows in a batch; None for none.

    Examples:
        >>> list(batches([2, 9, 3, 2], tokens=6))  # 9 goes alone; 3 + 3 padded; 2
        [[1], [2, 0], [3]]
        >>> list(batches([2, 9, 3, 2], tokens=99, rows=3))
        [[1, 2, 0], [3]]
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == rows or lengths[batch[0]] * (len(batch) + 1) > tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def give_back_memory() -> None:
    """Have Python and CUDA let go of what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
