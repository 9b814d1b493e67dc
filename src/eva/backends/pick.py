"""Which token comes next: one uniform number for each row, looked up in the cumulated softmax.

`torch.multinomial` draws a random number for every entry of the vocabulary; the inverse of the
cumulative distribution needs one in all. That is much faster on a CPU, and it lets the randomness
of a row belong to its prompt instead of a generator that the whole batch shares. Sizes: R rows, V
entries of the vocabulary, K columns of any table of probabilities.
"""

import torch
from torch import Tensor

from eva.records import Sampling

SLICE = 2**24
"""Logits looked at in one go, so that a large vocabulary needs 64 MiB of scratch for each table."""
FLAT = 2048
"""Widest table that is cumulated whole; a wider one is cumulated in blocks of `BLOCK` first."""
BLOCK = 64
"""Entries of a block."""
NUCLEUS = (64, 1024, 16384)
"""So many of the most probable tokens are sorted before more are: sorting 152k takes 12 ms."""


def pick(logits_R_V: Tensor, uniform_R: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability, both of shape [R].

    Args:
        logits_R_V: The model's logits, shape [R, V], any float type.
        uniform_R: One number in [0, 1) for each row, shape [R], float64.
        sampling: `temperature` (0 takes the most probable token) and `top_p`. The nucleus is the
            smallest set of most probable tokens whose mass at that temperature reaches top_p.

    Returns:
        Tokens, int64, and their natural log-probability under softmax(logits), float32, whatever
        the temperature and the nucleus are.
    """
    rows = max(1, SLICE // logits_R_V.shape[1])
    parts = [
        _pick(logits.float(), uniform[:, None], sampling)
        for logits, uniform in zip(
            torch.split(logits_R_V, rows), torch.split(uniform_R, rows), strict=True
        )
    ]
    tokens, logprobs = zip(*parts, strict=True)
    return torch.cat(tokens)[:, 0], torch.cat(logprobs)[:, 0]


def _pick(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    logprobs = logits.log_softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1, keepdim=True)
    else:
        # The softmax of logprobs / 1 is what exp gives at a third of the price.
        heated = sampling.temperature != 1
        probs = (logprobs / sampling.temperature).softmax(-1) if heated else logprobs.exp()
        tokens = (
            draw(probs, uniform)
            if sampling.top_p == 1
            else draw_nucleus(probs, uniform, sampling.top_p)
        )
    return tokens, logprobs.gather(-1, tokens)


def draw(probs_R_V: Tensor, uniform_R_1: Tensor) -> Tensor:
    """Tokens of shape [R, 1], each with its probability.

    Summed in float64 because the float32 sum over 10^5 entries loses the rare ones. A wide table is
    summed in blocks, and only the block that is hit is summed entry by entry.
    """
    if probs_R_V.shape[1] <= FLAT:
        cdf = probs_R_V.double().cumsum(-1)
        return _first_beyond(cdf, uniform_R_1 * cdf[:, -1:])
    blocks = torch.nn.functional.pad(probs_R_V, (0, -probs_R_V.shape[1] % BLOCK))
    blocks = blocks.view(len(blocks), -1, BLOCK)
    cdf = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniform_R_1 * cdf[:, -1:]
    block = _first_beyond(cdf, target)
    before = torch.where(block > 0, cdf.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.take_along_dim(block[:, :, None], dim=1)[:, 0].double().cumsum(-1)
    return block * BLOCK + _first_beyond(inside, target - before)


def draw_nucleus(probs_R_V: Tensor, uniform_R_1: Tensor, top_p: float) -> Tensor:
    """Tokens of shape [R, 1] from the nucleus, each with its probability divided by its mass.

    How many tokens are sorted for a row depends on that row alone.
    """
    rows, V = probs_R_V.shape
    tokens = torch.empty(rows, 1, dtype=torch.int64, device=probs_R_V.device)
    open_rows = torch.arange(rows, device=probs_R_V.device)
    for width in [*(width for width in NUCLEUS if width < V), V]:
        top, vocabulary = probs_R_V[open_rows].topk(width)
        cdf = top.double().cumsum(-1)
        reached = cdf[:, -1] >= top_p if width < V else torch.ones_like(open_rows).bool()
        cdf = cdf[reached]
        last = torch.searchsorted(cdf, cdf.new_full((len(cdf), 1), top_p)).clamp(max=width - 1)
        place = _first_beyond(cdf, uniform_R_1[open_rows[reached]] * cdf.gather(1, last))
        tokens[open_rows[reached]] = vocabulary[reached].gather(1, place)
        open_rows = open_rows[~reached]
        if not len(open_rows):
            break
    return tokens


def _first_beyond(cdf_R_K: Tensor, target_R_1: Tensor) -> Tensor:
    """The first column whose cumulated mass exceeds the target; its own mass is never zero.

    Rounding can lift a target to the whole mass, which no column exceeds, so it is held below. No
    column exceeds NaN either; its logprob tells the caller, if the index stays inside the table.
    """
    whole = cdf_R_K[:, -1:]
    below = torch.nextafter(whole, torch.zeros_like(whole))
    found = torch.searchsorted(cdf_R_K, target_R_1.minimum(below), right=True)
    return found.clamp(max=cdf_R_K.shape[1] - 1)
