"""The tokenizer and the model: one token per word, Hugging Face objects through and through."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva.playground.domain import EVERY_CONSTRAINT, parse, render
from eva.playground.policy import (
    ANSWER,
    NEW_TOKENS,
    POSITIONS,
    VOCABULARY,
    make_model,
    make_tokenizer,
)
from eva.playground.sft import encode


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def turn(role, content):
    return {"role": role, "content": content}


def test_the_vocabulary_has_35_tokens():
    assert len(VOCABULARY) == 35
    assert sorted(VOCABULARY.values()) == list(range(35))


def test_every_text_of_the_language_survives_the_tokenizer(tokenizer):
    text = f"{render(EVERY_CONSTRAINT)} {ANSWER} 0 1 2 3 4 5 6 7 8 9"

    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in tokenizer.encode(text)
    assert tokenizer.encode("poem") == [tokenizer.unk_token_id]


def test_the_chat_template_renders_prompt_and_answer(tokenizer):
    asked = [turn("user", "last 6 even")]
    told = [*asked, turn("assistant", "8 6")]

    def rendered(chat, **options):
        return tokenizer.apply_chat_template(chat, tokenize=False, **options)

    assert rendered(asked, add_generation_prompt=True) == "<bos> last 6 even ="
    assert rendered(told) == "<bos> last 6 even = 8 6 <eos>"
    # A prompt is a prefix of its conversation, so a learner can mask it.
    assert rendered(told).startswith(rendered(asked, add_generation_prompt=True))
    assert rendered([*told, turn("user", "odd")], add_generation_prompt=True) == (
        "<bos> last 6 even = 8 6 <eos> odd ="
    )


def test_the_encoding_of_the_training_loop_is_that_of_the_chat_template(tokenizer):
    constraints, y = parse("last 6 more 4 even"), (8, 4, 2, 6)
    told = [turn("user", render(constraints)), turn("assistant", "8 4 2 6")]

    tokens, prompt = encode(constraints, y)

    whole = tokenizer.apply_chat_template(told, return_dict=False)
    asked = tokenizer.apply_chat_template(told[:1], add_generation_prompt=True, return_dict=False)
    assert tokens == whole
    assert tokens[:prompt] == asked


def test_the_longest_prompt_and_answer_fit_the_context(tokenizer):
    content = " ".join(f"no {v}" for v in range(10))

    prompt = tokenizer.apply_chat_template(
        [turn("user", content)], add_generation_prompt=True, return_dict=False
    )

    assert len(prompt) + NEW_TOKENS == 33 <= POSITIONS


def test_the_model_has_the_stated_size_and_its_weights_have_a_seed():
    weights = [make_model(seed).state_dict() for seed in (1, 1, 2)]

    assert sum(p.numel() for p in make_model(1).parameters()) == 157_120
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    assert not weights[0]["lm_head.weight"].equal(weights[2]["lm_head.weight"])


def test_making_a_model_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    make_model(1)

    assert torch.random.get_rng_state().equal(before)


def test_model_and_tokenizer_come_back_from_a_folder(tmp_path, tokenizer):
    make_model(1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    model, read = (kind.from_pretrained(tmp_path) for kind in (AutoModelForCausalLM, AutoTokenizer))

    assert type(model).__name__ == "GPT2LMHeadModel"
    assert model.config.activation_function == "gelu_pytorch_tanh"
    assert model.generation_config.eos_token_id == read.eos_token_id == VOCABULARY["<eos>"]
    assert read.chat_template == tokenizer.chat_template
    assert read.padding_side == "left"
    assert read.get_vocab() == VOCABULARY
