"""From pairs to padded token arrays: tokens, then micro-batches, then rows side by side.

What was sampled is what is learnt: response tokens are taken as the policy drew them, and an answer
that was cut at the token limit gets no end token. NumPy only; no torch is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eva.errors import BackEndError
from eva.learn.schedule import Index
from eva.records import Pair, Prompt, Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ints: TypeAlias = NDArray[np.int64]
"""Token ids, positions or 0/1 masks; the axes stand in the name."""


@dataclass(frozen=True)
class TokenPair:
    """A pair as token ids."""

    prompt: Sequence[int]
    """The prompt by the chat template, up to where the answer begins; never empty."""
    chosen: Sequence[int]
    """y+, the end token included if it was sampled."""
    rejected: Sequence[int]
    """y-."""

    @cached_property
    def tokens(self) -> int:
        """Response tokens of both responses."""
        return len(self.chosen) + len(self.rejected)


@dataclass(frozen=True)
class Batch:
    """M pairs as B = 2 M rows: the chosen responses, then the rejected ones.

    With prompts padded on the left to P tokens and responses on the right to R, all answers begin
    in the same column, so the last R positions of the inputs predict exactly the R response tokens.
    The last response token predicts nothing and is no input: T = P + R - 1.
    """

    inputs_B_T: Ints
    """Token ids, 0 where padded."""
    mask_B_T: Ints
    """1 for a token, 0 for padding."""
    positions_B_T: Ints
    """Positions counted from the first token of the prompt."""
    responses_B_R: Ints
    """The response tokens that are predicted, 0 where padded."""
    response_mask_B_R: Ints
    """1 for a token of the response, 0 for padding."""


def token_pairs(pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase") -> list[TokenPair]:
    """The pairs as token ids.

    Raises:
        BackEndError: The tokenizer has no chat template, or it makes nothing of a prompt.
    """
    prompts = prompt_tokens([pair.prompt for pair in pairs], tokenizer)
    return [
        TokenPair(
            prompt=tokens,
            chosen=response_tokens(pair.chosen, tokenizer),
            rejected=response_tokens(pair.rejected, tokenizer),
        )
        for tokens, pair in zip(prompts, pairs, strict=True)
    ]


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


def micro_batches(pairs: Sequence[TokenPair], step: Index, micro_tokens: int) -> list[Index]:
    """The pairs of a step, sorted by length and cut into passes of bounded size.

    A pass of M pairs has 2 M rows of P + R tokens; as many pairs go into one as keep
    ``2 M (P + R) <= micro_tokens``, at least one. Sorting keeps the padding small. Neither changes
    the update: the loss is the mean over the step however it is cut.

    Args:
        pairs: All pairs.
        step: Positions of the pairs of the step.
        micro_tokens: Bound on padded tokens in one pass.
    """
    passes: list[list[int]] = []
    prompt = response = 0
    for i, p, r in sorted(
        _widths(pairs, step), key=lambda width: (-width[1] - width[2], -width[1])
    ):
        prompt, response = max(prompt, p), max(response, r)
        if not passes or 2 * (len(passes[-1]) + 1) * (prompt + response) > micro_tokens:
            passes.append([])
            prompt, response = p, r
        passes[-1].append(i)
    return [np.asarray(micro, dtype=np.intp) for micro in passes]


def _widths(pairs: Sequence[TokenPair], step: Index) -> list[tuple[int, int, int]]:
    """Position, prompt tokens and tokens of the longer response of each pair of a step."""
    members = ((int(i), pairs[i]) for i in step)
    return [(i, len(t.prompt), max(len(t.chosen), len(t.rejected))) for i, t in members]


def padded_batch(pairs: Sequence[TokenPair]) -> Batch:
    """M pairs as padded arrays; see `Batch` for the layout."""
    prompts = [pair.prompt for pair in pairs] * 2
    responses = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    prompts_B_P, prompt_mask_B_P = _padded(prompts, left=True)
    responses_B_R, response_mask_B_R = _padded(responses, left=False)
    mask_B_T = np.concatenate([prompt_mask_B_P, response_mask_B_R[:, :-1]], axis=1)
    return Batch(
        inputs_B_T=np.concatenate([prompts_B_P, responses_B_R[:, :-1]], axis=1),
        mask_B_T=mask_B_T,
        positions_B_T=np.maximum(mask_B_T.cumsum(axis=1) - 1, 0),
        responses_B_R=responses_B_R,
        response_mask_B_R=response_mask_B_R,
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
