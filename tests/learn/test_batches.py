import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from eva.errors import BackEndError
from eva.learn.batches import (
    Costs,
    TokenGroup,
    micro_batches,
    padded_batch,
    prompt_tokens,
    response_tokens,
)
from eva.records import Message, Prompt, Response
from tests.tiny import BOS, EOS, SPECIAL

USER, ANSWER, A, B = (
    *range(len(SPECIAL) - 2, len(SPECIAL)),
    *range(len(SPECIAL), len(SPECIAL) + 2),
)
"""Ids of <user>, <assistant> and of the words "w0" and "w1"."""


def test_sampled_tokens_are_learnt_as_they_are(tokenizer: PreTrainedTokenizerBase) -> None:
    # "w1" would be tokenised as [B]; the sampled ids say something else, and they count.
    sampled = Response(text="w1", tokens=(A, A, EOS))
    assert response_tokens(sampled, tokenizer) == [A, A, EOS]


def test_a_cut_answer_gets_no_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    sampled = Response(text="w0 w1", tokens=(A, B), finish="length")
    assert response_tokens(sampled, tokenizer) == [A, B]
    assert response_tokens(Response(text="w0 w1", finish="length"), tokenizer) == [A, B]


def test_a_text_that_ended_gets_its_end_token_once(tokenizer: PreTrainedTokenizerBase) -> None:
    # The tokenizer would put <bos> before any text; inside a chat there is no second one.
    assert response_tokens(Response(text="w0 w1"), tokenizer) == [A, B, EOS]


def test_the_prompt_has_each_special_token_once(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = Prompt(messages=(Message(role="user", content="w0 w1"),))
    assert prompt_tokens([prompt], tokenizer) == [[BOS, USER, A, B, ANSWER]]


def test_a_tokenizer_without_chat_template_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    prompt = Prompt(messages=(Message(role="user", content="w0"),))
    with pytest.raises(BackEndError, match="no chat template"):
        prompt_tokens([prompt], bare)


def test_a_prompt_without_tokens_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    silent = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, chat_template="{{ messages[0].content }}"
    )
    prompt = Prompt(messages=(Message(role="user", content=""),))
    with pytest.raises(BackEndError, match=prompt.id):
        prompt_tokens([prompt], silent)


def test_rows_are_padded_on_the_right_and_the_last_token_is_no_input() -> None:
    groups = [pair([11], [21, 22, 23], [31]), pair([12, 13], [24], [])]
    batch = padded_batch(groups, shared=False)
    # Row 0 feeds 11 21 22 and predicts 21 22 23; row 2 feeds 12 13 and predicts 24 from the 13.
    assert batch.inputs_B_T.tolist() == [[11, 21, 22], [11, 0, 0], [12, 13, 0], [12, 13, 0]]
    assert batch.predicts_B_T.tolist() == [
        [True, True, True],
        [True, False, False],
        [False, True, False],
        [False, False, False],
    ]
    assert batch.tokens_N.tolist() == [21, 22, 23, 31, 24]
    assert batch.mask_B_R.sum(1).tolist() == [3, 1, 1, 0]
    assert batch.group_B.tolist() == [0, 0, 1, 1]
    assert batch.prompts_M_P is None


def test_a_shared_prompt_is_there_once_without_its_last_token() -> None:
    groups = [pair([11], [21, 22, 23], [31]), pair([12, 13, 14], [24], [])]
    batch = padded_batch(groups, shared=True)
    assert batch.prompts_M_P is not None
    assert batch.prompt_mask_M_P is not None
    assert batch.prompts_M_P.tolist() == [[0, 0], [12, 13]]
    assert batch.prompt_mask_M_P.tolist() == [[0, 0], [1, 1]]
    # Each row begins with the last token of its prompt, which predicts its first token.
    assert batch.inputs_B_T.tolist() == [[11, 21, 22], [11, 0, 0], [14, 0, 0], [14, 0, 0]]
    assert batch.predicts_B_T.sum(1).tolist() == [3, 1, 1, 0]
    assert batch.tokens_N.tolist() == [21, 22, 23, 31, 24]


def test_two_empty_responses_still_make_a_column() -> None:
    batch = padded_batch([pair([11], [], [])], shared=False)
    assert batch.inputs_B_T.tolist() == [[11], [11]]
    assert batch.mask_B_R.tolist() == [[False], [False]]


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenGroup:
    return TokenGroup(prompt, (chosen, rejected), (1.0, 0.0))


def sized(*sizes: tuple[int, int]) -> list[TokenGroup]:
    """Pairs of so many prompt tokens and tokens of the longer response."""
    return [pair([1] * p, [1] * r, [1]) for p, r in sizes]


def cut(groups: list[TokenGroup], bound: int, call: int = 0, **choices: object) -> list[list[int]]:
    costs = Costs(micro_tokens=bound, call_tokens=call, share=False)
    passes = micro_batches(groups, np.arange(len(groups)), replace(costs, **choices))
    return [one.index.tolist() for one in passes]


def test_micro_batches_are_sorted_by_length_and_bounded() -> None:
    # Widths 4, 10, 2, 4, 2: the widest takes 2 * 10 = 20 alone; 0 and 3 take 2 * 2 * 4 = 16 and
    # a third pair would need 24; 2 and 4 take 2 * 2 * 2 = 8.
    assert cut(sized((2, 2), (5, 5), (1, 1), (2, 2), (1, 1)), 20, 1) == [[1], [0, 3], [2, 4]]


def test_cuts_weigh_padding_against_calls() -> None:
    # Together they are padded to 10: 4 * 10 = 40. Apart they take 20 + 4 tokens and one call more.
    groups = sized((5, 5), (1, 1))
    assert cut(groups, 100, call=17) == [[0, 1]]
    assert cut(groups, 100, call=15) == [[0], [1]]


@pytest.mark.parametrize("draw", range(20))
def test_the_cuts_are_the_cheapest_of_all(draw: int) -> None:
    rng = np.random.default_rng(draw)
    groups = sized(*rng.integers(1, 20, size=(7, 2)).tolist())
    call, bound = int(rng.integers(1, 60)), 200

    def cost(index: Sequence[int]) -> float:
        tokens = padded_tokens([groups[i] for i in index])
        return call + tokens if tokens <= bound or len(index) == 1 else math.inf

    found = cut(groups, bound, call)
    order = [i for index in found for i in index]
    every = []
    for marks in product([False, True], repeat=6):
        edges = [0, *(j + 1 for j, mark in enumerate(marks) if mark), 7]
        every.append(sum(cost(order[a:b]) for a, b in pairwise(edges)))
    assert sum(map(cost, found)) == min(every)


def padded_tokens(groups: list[TokenGroup]) -> int:
    longest = max(len(g.prompt) for g in groups) + max(g.longest for g in groups)
    return 2 * len(groups) * longest


def test_a_micro_batch_counts_what_padding_makes_of_it() -> None:
    # Both pairs are 6 wide, but together they count as 5 + 5 = 10: 2 * 2 * 10 = 40 tokens.
    assert len(cut(sized((5, 1), (1, 5)), 39, 100)) == 2
    assert len(cut(sized((5, 1), (1, 5)), 40, 100)) == 1


def test_a_pair_beyond_the_bound_goes_alone_and_one_may_come_twice() -> None:
    costs = Costs(micro_tokens=1, call_tokens=9, share=None)
    cuts = micro_batches(sized((5, 5)), np.array([0, 0]), costs)
    assert [one.index.tolist() for one in cuts] == [[0], [0]]


def test_prompts_are_shared_where_it_costs_less_and_the_window_holds_them() -> None:
    long_prompt, short_prompt = sized((50, 5)), sized((3, 5))

    def shared(groups: list[TokenGroup], **choices: object) -> bool:
        costs = replace(Costs(micro_tokens=1000, call_tokens=20, share=None), **choices)
        (one,) = micro_batches(groups, np.array([0]), costs)
        return one.shared

    # 2 * 55 + 20 = 130 against 50 + 2 * 5 + 40 = 100; 2 * 8 + 20 = 36 against 3 + 10 + 40 = 53.
    assert shared(long_prompt)
    assert not shared(short_prompt)
    assert shared(short_prompt, share=True)
    assert not shared(long_prompt, share=False)
    assert not shared(long_prompt, share=True, window=55.0)
    assert shared(long_prompt, share=True, window=56.0)
    assert not shared(sized((1, 5)), share=True)


def test_no_groups_make_no_passes() -> None:
    assert micro_batches([], np.zeros(0, dtype=np.intp), Costs(10, 1, None)) == []


def test_a_batch_is_as_big_as_its_bound_says() -> None:
    rng = np.random.default_rng(1)
    pairs = sized(*rng.integers(1, 30, size=(64, 2)).tolist())
    cuts = cut(pairs, 500, 10)
    assert sorted(i for index in cuts for i in index) == list(range(64))
    sizes = [
        padded_batch([pairs[i] for i in index], shared=False).inputs_B_T.size for index in cuts
    ]
    assert max(sizes) <= 500
