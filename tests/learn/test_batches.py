import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from eva.errors import BackEndError
from eva.learn.batches import (
    TokenPair,
    micro_batches,
    padded_batch,
    prompt_tokens,
    response_tokens,
    token_pairs,
)
from eva.records import Message, Pair, Prompt, Response
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


def test_token_pairs_hold_prompt_and_both_responses(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = Prompt(messages=(Message(role="user", content="w0"),))
    pair = Pair(prompt=prompt, chosen=Response(text="w1"), rejected=Response(text="w0"), margin=1.0)
    (tokens,) = token_pairs([pair], tokenizer)
    assert tokens == TokenPair([BOS, USER, A, ANSWER], [B, EOS], [A, EOS])
    assert tokens.tokens == 4
    assert token_pairs([], tokenizer) == []


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


def test_a_batch_puts_prompts_left_responses_right_and_leaves_the_last_token_out() -> None:
    batch = padded_batch([TokenPair([11], [21, 22, 23], [31]), TokenPair([12, 13], [24], [])])
    # P = 2, R = 3, T = P + R - 1 = 4: row 0 feeds 11 21 22 and predicts 21 22 23.
    assert batch.inputs_B_T.tolist() == [
        [0, 11, 21, 22],
        [12, 13, 24, 0],
        [0, 11, 31, 0],
        [12, 13, 0, 0],
    ]
    assert batch.mask_B_T.tolist() == [[0, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]]
    assert batch.positions_B_T.tolist() == [[0, 0, 1, 2], [0, 1, 2, 2], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert batch.responses_B_R.tolist() == [[21, 22, 23], [24, 0, 0], [31, 0, 0], [0, 0, 0]]
    assert batch.response_mask_B_R.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_two_empty_responses_still_make_a_column() -> None:
    batch = padded_batch([TokenPair([11], [], [])])
    assert batch.inputs_B_T.tolist() == [[11], [11]]
    assert batch.response_mask_B_R.tolist() == [[0], [0]]


def sized(*sizes: tuple[int, int]) -> list[TokenPair]:
    """Pairs of so many prompt tokens and tokens of the longer response."""
    return [TokenPair([1] * p, [1] * r, [1]) for p, r in sizes]


def test_micro_batches_are_sorted_by_length_and_bounded() -> None:
    pairs = sized((2, 2), (5, 5), (1, 1), (2, 2), (1, 1))
    step = np.array([0, 1, 2, 3, 4])
    # Widths 4, 10, 2, 4, 2: the widest takes 2 * 10 = 20 alone; 0 and 3 take 2 * 2 * 4 = 16 and
    # a third pair would need 24; 2 and 4 take 2 * 2 * 2 = 8.
    cuts = [micro.tolist() for micro in micro_batches(pairs, step, micro_tokens=20)]
    assert cuts == [[1], [0, 3], [2, 4]]


def test_a_micro_batch_counts_what_padding_makes_of_it() -> None:
    # Both pairs are 6 wide, but together they are padded to 5 + 5 = 10: 2 * 2 * 10 = 40 tokens.
    pairs = sized((5, 1), (1, 5))
    assert len(micro_batches(pairs, np.array([0, 1]), micro_tokens=39)) == 2
    assert len(micro_batches(pairs, np.array([0, 1]), micro_tokens=40)) == 1


def test_a_pair_beyond_the_bound_goes_alone_and_one_may_come_twice() -> None:
    cuts = [m.tolist() for m in micro_batches(sized((5, 5)), np.array([0, 0]), micro_tokens=1)]
    assert cuts == [[0], [0]]


def test_a_batch_is_as_big_as_its_bound_says() -> None:
    rng = np.random.default_rng(1)
    pairs = sized(*rng.integers(1, 30, size=(64, 2)).tolist())
    step = np.arange(64)
    cuts = micro_batches(pairs, step, micro_tokens=500)
    assert sorted(np.concatenate(cuts).tolist()) == step.tolist()
    sizes = [padded_batch([pairs[i] for i in micro]).inputs_B_T.size for micro in cuts]
    assert max(sizes) <= 500
