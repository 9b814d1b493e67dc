import gc
import json

import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Lfm2Config,
    MambaConfig,
    PreTrainedModel,
)

from eva.backends.hf import context_gate, open_policy
from eva.errors import BackEndError
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Message, Prompt, Sampling
from tests.tiny import (
    BOS,
    EOS,
    SHAPE,
    save_tiny,
    tiny_gemma2,
    tiny_gpt2,
    tiny_llama,
    tiny_qwen3,
)

GREEDY = Sampling(temperature=0.0, max_tokens=12)
LENGTHS = (1, 7, 3, 12, 3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def opened(folder, **config):
    return open_policy(
        Checkpoint(uri=str(folder), id="tiny"), HfPolicy(model=str(folder), **config)
    )


def prompt(words, start=0):
    text = " ".join(f"w{(start + 5 * i) % 32}" for i in range(words))
    return Prompt(messages=(Message(role="user", content=text),))


def unequal_prompts():
    return [prompt(words, start) for start, words in enumerate(LENGTHS)]


def end_with(folder, ends):
    """Let the model's own settings name these end tokens."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ends}))


def template_ids(folder, asked):
    words = asked.messages[0].content
    text = f"<bos> <user> {words} <assistant>"
    return AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def token_lists(answers):
    return [[response.tokens for response in group] for group in answers]


def tiny_bloom(path):
    """Takes no position ids: ALiBi counts the mask."""
    shape = {key: SHAPE[key] for key in ("vocab_size", "hidden_size", "initializer_range")}
    return save_tiny(BloomConfig(**shape, n_layer=2, n_head=4), path)


def tiny_lfm2(path):
    """A convolution, whose state is no list of keys, beside attention."""
    shape = {key: SHAPE[key] for key in SHAPE if key != "head_dim"}
    return save_tiny(Lfm2Config(**shape, layer_types=["conv", "full_attention"]), path)


def tiny_mamba(path):
    """No attention at all, and another name for its cache."""
    shape = {key: SHAPE[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")}
    return save_tiny(MambaConfig(**shape, state_size=4, initializer_range=0.3), path)


@pytest.mark.parametrize(
    "tiny",
    [tiny_llama, tiny_qwen3, tiny_gemma2, tiny_gpt2, tiny_bloom, tiny_lfm2, tiny_mamba],
)
def test_greedy_answers_are_those_of_generate(tiny, tmp_path):
    folder = tiny(tmp_path)
    # A third of the vocabulary ends an answer, so that rows leave the batch at different steps.
    ends = [EOS, *range(10, 39, 3)]
    end_with(folder, ends)
    asked = unequal_prompts()

    with opened(folder) as policy:
        answers = policy(asked, 2, sampling=GREEDY, seed=1)

    model = loaded(folder)
    for one, group in zip(asked, answers, strict=True):
        ids = torch.tensor([template_ids(folder, one)])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=ends,
        )
        expected = tuple(whole[0, ids.shape[1] :].tolist())
        assert [response.tokens for response in group] == [expected, expected]
    if tiny is not tiny_mamba:  # it repeats one token
        assert len({len(group[0].tokens) for group in answers}) > 1


@pytest.mark.parametrize("window", [5, 64])
def test_logprobs_are_those_of_a_forward_pass_over_the_whole_answer(window, tmp_path):
    # Gemma 2: one layer sees 5 tokens and outgrows its window, or sees 64 and never does.
    folder = tiny_gemma2(tmp_path, sliding_window=window)
    asked = unequal_prompts()

    with opened(folder) as policy:
        answers = policy(asked, 3, sampling=Sampling(max_tokens=20), seed=5)

    model = loaded(folder)
    for one, group in zip(asked, answers, strict=True):
        start = template_ids(folder, one)
        for response in group:
            ids = torch.tensor([start + list(response.tokens)])
            with torch.no_grad():
                logprobs = model(ids).logits[0].log_softmax(-1)
            expected = [
                float(logprobs[len(start) - 1 + t, token])
                for t, token in enumerate(response.tokens)
            ]
            assert response.logprobs == pytest.approx(expected, abs=1e-4)
            assert all(logprob == round(logprob, 5) for logprob in response.logprobs)


def test_a_long_answer_outgrows_the_memory_first_set_aside(tmp_path, monkeypatch):
    # With 4 positions beyond the prompt set aside at first, 40 tokens need more five times over.
    monkeypatch.setattr("eva.backends.cache.GROWTH", 4)
    folder = tiny_gpt2(tmp_path)
    end_with(folder, [EOS, 10, 20])
    asked = unequal_prompts()
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=40)

    with opened(folder) as policy:
        grown = token_lists(policy(asked, 6, sampling=sampling, seed=3))
        monkeypatch.setattr("eva.backends.cache.GROWTH", 100)
        roomy = token_lists(policy(asked, 6, sampling=sampling, seed=3))

    assert grown == roomy
    assert max(len(tokens) for group in grown for tokens in group) > 20


def test_answers_do_not_depend_on_batch_order_or_rows(llama):
    asked = [prompt(words, start) for start in range(6) for words in LENGTHS]
    sampling = Sampling(max_tokens=12)

    with opened(llama) as policy:
        together = token_lists(policy(asked, 4, sampling=sampling, seed=7))
        backwards = token_lists(policy(asked[::-1], 4, sampling=sampling, seed=7))[::-1]
        alone = [token_lists(policy([one], 4, sampling=sampling, seed=7))[0] for one in asked]
        reseeded = token_lists(policy(asked, 4, sampling=sampling, seed=8))
        again = token_lists(policy(asked, 4, sampling=sampling, seed=7))
    with opened(llama, rows=3) as policy:  # fewer rows than responses to one prompt
        few_rows = token_lists(policy(asked, 4, sampling=sampling, seed=7))

    assert together == again == backwards == alone == few_rows
    assert together != reseeded
    assert len({tuple(group) for group in together}) > 20
    assert all(len(set(group)) > 1 for group in together)


def test_a_larger_token_limit_only_continues_an_answer(llama):
    with opened(llama) as policy:
        short = policy([prompt(3)], 5, sampling=Sampling(max_tokens=4), seed=2)[0]
        long = policy([prompt(3)], 5, sampling=Sampling(max_tokens=40), seed=2)[0]

    assert [r.tokens for r in short] == [r.tokens[:4] for r in long]


def test_finish_says_whether_an_end_token_ended_the_answer(tmp_path):
    # Both the tokenizer's end token and those of generation_config.json count.
    folder = tiny_llama(tmp_path)
    ends = {EOS, 8, 9, 11, 23, 30}
    end_with(folder, [8, 9, 11, 23, 30])

    with opened(folder) as policy:
        groups = policy(
            unequal_prompts(),
            40,
            sampling=Sampling(temperature=1.5, top_p=1.0, max_tokens=9),
            seed=1,
        )

    responses = [response for group in groups for response in group]
    seen = set()
    for response in responses:
        assert not ends & set(response.tokens[:-1])
        stopped = response.tokens[-1] in ends
        assert response.finish == ("stop" if stopped else "length")
        assert stopped or len(response.tokens) == 9
        assert len(response.logprobs) == len(response.tokens)
        seen |= ends & {response.tokens[-1]}
    assert seen == ends
    assert {response.finish for response in responses} == {"stop", "length"}


def test_text_leaves_special_tokens_out(llama):
    sampling = Sampling(temperature=1.5, top_p=1.0, max_tokens=9)
    with opened(llama) as policy:
        responses = policy([prompt(4)], 50, sampling=sampling, seed=1)[0]

    for response in responses:
        words = [f"w{token - 7}" for token in response.tokens if token > 6]
        kept = [word for word in response.text.split() if word.startswith("w")]
        assert kept == words
        assert "<eos>" not in response.text
    assert any(EOS in response.tokens for response in responses)


def test_special_tokens_are_only_those_of_the_chat_template(llama):
    # The tokenizer puts <bos> before what it encodes, and so does the template: one must be left.
    # Context 64: the template makes <bos> <user> w0 <assistant> of one word, 4 tokens.
    assert template_ids(llama, prompt(1))[0] == BOS
    assert context_gate(str(llama), 60)(prompt(1).messages) is None
    assert "has 4 tokens" in context_gate(str(llama), 61)(prompt(1).messages)


# ------------------------------------------------------------------ refusals


def test_the_gate_says_why_a_chat_does_not_fit(llama):
    gate = context_gate(str(llama), 50)

    assert gate(prompt(11).messages) is None
    assert gate(prompt(12).messages) == (
        "the prompt has 15 tokens; with 50 new tokens that passes the model's context of 64"
    )


def test_a_prompt_that_does_not_fit_is_an_error_and_the_others_are_answered(llama):
    sampling = Sampling(max_tokens=32)
    with opened(llama) as policy:
        found = policy([prompt(30), prompt(1), prompt(31)], 2, sampling=sampling, seed=1)
        (alone,) = policy([prompt(1)], 2, sampling=sampling, seed=1)
        (nobody,) = policy([prompt(30)], 2, sampling=sampling, seed=1)

    reason = "with 32 new tokens that passes the model's context of 64"
    assert [one.error for one in found[0]] == [f"the prompt has 33 tokens; {reason}"] * 2
    assert found[1] == alone
    assert [one.finish for one in found[2]] == ["error", "error"]
    assert nobody == found[0]


def test_a_template_that_refuses_a_chat_is_quoted(tmp_path):
    folder = tiny_llama(tmp_path)
    template = folder / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    system = Prompt(messages=(Message(role="system", content="w1"),))

    reason = "the model's chat template refuses the prompt (no system)"
    assert context_gate(str(folder), 5)(system.messages) == reason
    with opened(folder) as policy:
        fine, refused = policy([prompt(1), system], 1, sampling=GREEDY, seed=1)
    assert fine[0].tokens
    assert refused[0].error == reason


def sentence(folder, **config):
    with pytest.raises(BackEndError) as raised, opened(folder, **config):
        pass
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_missing_folder_is_named(tmp_path):
    text = sentence(tmp_path / "nowhere")
    assert f"the folder {tmp_path / 'nowhere'} does not exist" in text
    assert "correct the path" in text


def test_a_folder_that_is_no_model_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert f"the folder {tmp_path} cannot be read as one" in sentence(tmp_path)
    with pytest.raises(BackEndError, match="cannot be read as one"):
        context_gate(str(tmp_path), 5)


def test_a_hub_id_that_cannot_be_had_is_named(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = sentence("eva-founders/no-such-model")
    assert 'no folder "eva-founders/no-such-model" and no hub id of that name' in text
    assert "the network" in text


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    folder = tiny_llama(tmp_path)
    (folder / "chat_template.jinja").unlink()
    assert "expected a tokenizer with a chat template" in sentence(folder)


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    folder = tiny_llama(tmp_path)
    loaded(folder).model.save_pretrained(folder)  # the body without its head
    text = sentence(folder)
    assert "lacks 1 tensors of LlamaForCausalLM, the first is lm_head.weight" in text


def test_a_damaged_weight_file_is_named(tmp_path):
    folder = tiny_llama(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"the folder {folder} cannot be read as one" in sentence(folder)


def test_a_device_that_is_not_there_is_named(llama):
    assert 'got "abacus"' in sentence(llama, device="abacus")
    if not torch.cuda.is_available():
        assert "torch sees 0 CUDA devices" in sentence(llama, device="cuda")


def test_logits_that_are_no_numbers_are_refused(tmp_path):
    folder = tiny_llama(tmp_path)
    model = loaded(folder)
    model.lm_head.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    with opened(folder) as policy, pytest.raises(BackEndError, match="expected finite logits"):
        policy([prompt(1)], 2, sampling=Sampling(max_tokens=3), seed=1)


def test_leaving_the_context_gives_the_memory_back(llama):
    def models():
        gc.collect()
        return sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())

    before = models()
    with opened(llama) as policy:
        policy([prompt(1)], 2, sampling=GREEDY, seed=1)
        assert models() > before
    assert models() == before
    with pytest.raises(BackEndError, match="this one was closed"):
        policy([prompt(1)], 2, sampling=GREEDY, seed=1)


def test_nothing_asked_is_nothing_answered(llama):
    with opened(llama) as policy:
        assert policy([], 3, sampling=GREEDY, seed=1) == []
