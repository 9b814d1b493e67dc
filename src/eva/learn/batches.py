"""From lessons to token arrays: token groups, then micro-batches, then rows side by side.

What was sampled is what is learnt: response tokens are taken as the policy drew them, and an answer
that was cut at the token limit gets no end token. NumPy only; no torch is imported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eva.errors import BackEndError
from eva.learn.schedule import Index
from eva.records import Prompt, Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ints: TypeAlias = NDArray[np.int64]
"""Token ids, positions or 0/1 masks; the axes stand in the name."""


@dataclass(frozen=True)
class TokenGroup:
    """A prompt and k responses as token ids: a pair has two, chosen and rejected."""

    prompt: Sequence[int]
    """The prompt by the chat template, up to where the answer begins; never empty."""
    responses: tuple[Sequence[int], ...]
    """y_1 ... y_k, the end token included where it was sampled."""
    signals: tuple[float, ...]
    """What the loss is told about each response: an advantage, a win probability or a reward."""

    @cached_property
    def tokens(self) -> int:
        """Tokens of all responses."""
        return sum(map(len, self.responses))

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest response, at least 1."""
        return max(1, *map(len, self.responses))


@dataclass(frozen=True)
class Batch:
    """B responses to M prompts, side by side, with N response tokens in all.

    The last token of a response predicts nothing and is no input. Where prompts are shared, the
    rows begin with the last token of their prompt, whose other tokens are encoded once for all rows
    (`prompts_M_P`); else each row holds its whole prompt. Rows are padded on the right, so that
    causal attention needs no mask; shared prompts are padded on the left.
    """

    inputs_B_T: Ints
    """Token ids, 0 where padded."""
    predicts_B_T: NDArray[np.bool_]
    """Whether the next token is one of the response; N are."""
    tokens_N: Ints
    """The response tokens, row by row."""
    mask_B_R: NDArray[np.bool_]
    """Where the N tokens stand in an array of B rows padded on the right."""
    group_B: Ints
    """The prompt of each row, in [0, M)."""
    prompts_M_P: Ints | None = None
    """All but the last token of each prompt, 0 where padded; None where they are not shared."""
    prompt_mask_M_P: Ints | None = None
    """1 for a token of the prompt, 0 for padding."""


def prompt_tokens(
    prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase"
) -> list[list[int]]:
    """Each prompt by the chat template, up to where the answer begins.

    The template writes all special tokens itself; none is added to its text.

    Raises:
        BackEndError: There is no chat template, or it makes nothing of a prompt.
    """
    if not prompts:
        return []
    if tokenizer.chat_template is None:
        raise BackEndError(
            "the tokenizer has no chat template, so the prompt of a chat is not defined; take an "
            "instruction-tuned model, or put a chat_template.jinja into the model's folder"
        )
    chats = [[message.model_dump() for message in prompt.messages] for prompt in prompts]
    # Its declared result depends on its arguments: for many chats, one list of ids each.
    rows: Any = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    for prompt, row in zip(prompts, rows, strict=True):
        if not row:
            raise BackEndError(
                f"the chat template makes no tokens of prompt {prompt.id}; expected at least one "
                "before the answer: add the marker of the assistant's turn to the template"
            )
    return list(rows)


def response_tokens(response: Response, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The response as sampled; where that is not known, its text in tokens.

    Only a text gets an end token, and only if the policy ended it itself.
    """
    if response.tokens is not None:
        return list(response.tokens)
    tokens: list[int] = tokenizer.encode(response.text, add_special_tokens=False)
    end = tokenizer.eos_token_id
    return [*tokens, end] if response.finish == "stop" and isinstance(end, int) else tokens


@dataclass(frozen=True)
class Pass:
    """One micro-batch: what goes forward and backward at once."""

    index: Index
    """Positions of its groups."""
    shared: bool
    """Whether each prompt is encoded once for all its responses."""


@dataclass(frozen=True)
class Costs:
    """What decides how a step is cut into passes."""

    micro_tokens: int
    """Bound on padded tokens in one pass."""
    call_tokens: int
    """What a call of the model costs besides its tokens, in tokens."""
    share: bool | None
    """Whether prompts are shared; None: in each pass where it costs less."""
    window: float = math.inf
    """Positions from which on a prompt cannot be shared, for the model's window slides."""


def micro_batches(groups: Sequence[TokenGroup], step: Index, costs: Costs) -> list[Pass]:
    """The groups of a step, sorted by length and cut into passes of little padding.

    A pass of B rows from M prompts costs ``B (P + R) + c`` padded tokens, with the longest of each
    and c for the call; with shared prompts ``M P + B R + 2 c``. The cuts are those of least total
    cost, by dynamic programming over the sorted groups, with at most `micro_tokens` in a pass (one
    group at least). They do not change the update: the loss is the mean over the step however it is
    cut.

    Args:
        groups: All groups.
        step: Positions of the groups of the step.
        costs: What a pass costs.
    """
    if not len(step):
        return []
    chosen = (groups[i] for i in step)
    sizes_N_3 = np.array([(len(g.prompt), g.longest, len(g.responses)) for g in chosen])
    order = np.lexsort((-sizes_N_3[:, 1], -sizes_N_3[:, 0] - sizes_N_3[:, 1]))
    last = _last_passes(sizes_N_3[order], costs)
    passes: list[Pass] = []
    end = len(order)
    while end:
        start, shared = last[end - 1]
        passes.append(Pass(np.asarray(step)[order[start:end]], shared))
        end = start
    return passes[::-1]


def _last_passes(sizes_N_3: Ints, costs: Costs) -> list[tuple[int, bool]]:
    """For each j, the last pass of the cheapest cuts of the first j groups.

    Args:
        sizes_N_3: Prompt tokens, tokens of the longest response and responses of N sorted groups.
        costs: What a pass costs.

    Returns:
        Where it begins, and whether it shares its prompts.
    """
    best = np.zeros(len(sizes_N_3) + 1)
    widest = np.zeros_like(sizes_N_3)  # of the pass from each start: longest parts, and its rows
    last: list[tuple[int, bool]] = []
    first = 0
    for end, (prompt, response, rows) in enumerate(sizes_N_3, 1):
        np.maximum(widest[first:end, :2], (prompt, response), out=widest[first:end, :2])
        widest[first:end, 2] += rows
        wide, rows_S = widest[first:end, :2].sum(1), widest[first:end, 2]
        # A pass that begins earlier is larger, so those that fit are the last ones.
        over = np.count_nonzero(wide * rows_S > costs.micro_tokens)
        skipped = min(end - 1 - first, int(over))
        first, wide, rows_S = first + skipped, wide[skipped:], rows_S[skipped:]
        prompt_S, response_S = widest[first:end, :2].T
        apart = rows_S * wide + costs.call_tokens
        once = np.arange(end - first, 0, -1) * prompt_S + rows_S * response_S
        once += 2 * costs.call_tokens
        can_share = (prompt_S > 1) & (wide < costs.window) & (costs.share is not False)
        shared = can_share & ((once < apart) | (costs.share is True))
        total = best[first:end] + np.where(shared, once, apart)
        cheapest = int(total.argmin())
        best[end] = total[cheapest]
        last.append((first + cheapest, bool(shared[cheapest])))
    return last


def padded_batch(groups: Sequence[TokenGroup], *, shared: bool) -> Batch:
    """The responses to M prompts as padded arrays; see `Batch` for the layout."""
    answers = [response for group in groups for response in group.responses]
    prompts = [group.prompt for group in groups for _ in group.responses]
    ahead = [1 if shared else len(prompt) for prompt in prompts]
    rows = [
        [*prompt[-1:], *answer[:-1]] if shared else [*prompt, *answer[:-1]]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    inputs_B_T, _ = _padded(rows, left=False)
    column_T = np.arange(inputs_B_T.shape[1])
    first_B = np.array(ahead)[:, None] - 1
    length_B = np.array([len(answer) for answer in answers])
    predicts_B_T = (column_T >= first_B) & (column_T < first_B + length_B[:, None])
    shared_prompts = _padded([group.prompt[:-1] for group in groups], left=True)
    return Batch(
        inputs_B_T=inputs_B_T,
        predicts_B_T=predicts_B_T,
        tokens_N=np.array([token for answer in answers for token in answer], dtype=np.int64),
        mask_B_R=np.arange(max(1, *length_B)) < length_B[:, None],
        group_B=np.repeat(np.arange(len(groups)), [len(group.responses) for group in groups]),
        prompts_M_P=shared_prompts[0] if shared else None,
        prompt_mask_M_P=shared_prompts[1] if shared else None,
    )


def _padded(rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Ints, Ints]:
    """Rows of ids side by side, at least one column wide, and the mask of what is no padding."""
    width = max(1, *(len(row) for row in rows))
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for b, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        ids[b, columns] = row
        mask[b, columns] = 1
    return ids, mask
