import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Timer

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config

from eva.backends import hf
from eva.backends.vllm import open_policy
from eva.errors import BackEndError, RecipeError
from eva.parts.policies import HfPolicy
from eva.records import Sampling
from tests import tiny
from tests.tiny import EOS
from tests.vllm.engines import (
    WITH_VLLM,
    checkpoint,
    config,
    engines,
    memory,
    prompt,
    prompts,
    small_adapter,
    waited,
)

pytestmark = WITH_VLLM

GREEDY = Sampling(temperature=0.0, max_tokens=24)
HOT = Sampling(temperature=1.0, top_p=0.9, max_tokens=24)


@pytest.fixture(scope="module")
def policy(model):
    with open_policy(checkpoint(model), config=config(model)) as opened:
        yield opened


def with_hf(folder, asked, n, sampling):
    """What eva's own sampler answers."""
    own = HfPolicy(model=str(folder), device="cpu", threads=1)
    with hf.open_policy(checkpoint(folder), own) as opened:
        return opened(asked, n, sampling=sampling, seed=1)


def tokens(answers):
    return [[response.tokens for response in group] for group in answers]


# ------------------------------------------------------------------ answers


def test_every_prompt_has_its_answers_with_text_tokens_and_finish(policy, model):
    answers = policy(prompts(), 4, sampling=HOT, seed=1)

    assert [len(group) for group in answers] == [4] * len(prompts())
    tokenizer = AutoTokenizer.from_pretrained(model)
    responses = [response for group in answers for response in group]
    for response in responses:
        assert response.finish == ("stop" if response.tokens[-1] == EOS else "length")
        assert EOS not in response.tokens[:-1]
        assert len(response.tokens) == HOT.max_tokens or response.finish == "stop"
        assert response.text == tokenizer.decode(response.tokens, skip_special_tokens=True)
    assert {response.finish for response in responses} == {"stop", "length"}
    assert len(set(tokens(answers)[0])) > 1


def test_the_seed_decides_and_neither_neighbours_nor_order_nor_earlier_calls_do(policy):
    asked = prompts()
    answers = policy(asked, 3, sampling=HOT, seed=1)

    assert policy(asked, 3, sampling=HOT, seed=1) == answers
    assert policy(asked[::-1][:5], 3, sampling=HOT, seed=1) == answers[::-1][:5]
    assert policy(asked, 3, sampling=HOT, seed=2) != answers


def test_greedy_answers_are_those_of_the_own_sampler(policy, model):
    answers = policy(prompts(), 2, sampling=GREEDY, seed=1)

    assert all(first == second for first, second in answers)
    assert answers != policy(prompts()[::-1], 2, sampling=GREEDY, seed=1)
    assert tokens(answers) == tokens(with_hf(model, prompts(), 2, GREEDY))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_first_tokens_come_as_often_as_the_model_says(policy, model, temperature, top_p):
    draws = 4000
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=1)
    (group,) = policy([prompt(3)], draws, sampling=sampling, seed=3)

    expected = {i: draws * p for i, p in nucleus(model, temperature, top_p).items()}
    found = Counter(response.tokens[0] for response in group)
    assert set(found) <= set(expected)
    common = [i for i, count in expected.items() if count >= 5]
    excess = sum((found[i] - expected[i]) ** 2 / expected[i] for i in common)
    # Chi-square with k degrees of freedom has mean k and variance 2 k.
    assert excess < len(common) + 4 * math.sqrt(2 * len(common))


def nucleus(folder: Path, temperature: float, top_p: float) -> dict[int, float]:
    """The probabilities of the first token of the answer to `prompt(3)`, by its definition."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": prompt(3).messages[0].content}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    kept: dict[int, float] = {}
    for p, i in sorted(((p, i) for i, p in enumerate((logits / temperature).softmax(0).tolist())))[
        ::-1
    ]:
        if sum(kept.values()) < top_p:
            kept[i] = p
    return {i: p / sum(kept.values()) for i, p in kept.items()}


def test_nothing_asked_is_nothing_answered(policy):
    assert policy([], 3, sampling=GREEDY, seed=1) == []


def test_a_prompt_that_does_not_fit_is_refused_in_the_words_of_the_own_sampler(policy, model):
    asked = [prompt(1), prompt(120), prompt(3)]
    answers = policy(asked, 2, sampling=GREEDY, seed=1)

    assert [group[0].finish == "error" for group in answers] == [False, True, False]
    assert answers[1] == with_hf(model, asked, 2, GREEDY)[1]
    assert policy(asked[1:2], 2, sampling=GREEDY, seed=1) == answers[1:2]


# ------------------------------------------------------------------ opening and release


def test_leaving_the_context_ends_the_engine_and_other_weights_can_be_opened(policy, model, other):
    asked, before = prompts(), (len(engines()), memory())
    with open_policy(checkpoint(other), config=config(other, context=64)) as opened:
        answers = opened(asked, 1, sampling=GREEDY, seed=1)
        assert len(engines()) > before[0]
        held = memory()
        ((refused,),) = opened([prompt(50)], 1, sampling=GREEDY, seed=1)
        assert "passes the model's context of 64" in (refused.error or "")

    assert len(engines()) == before[0]
    assert memory() - before[1] < 0.2 * (held - before[1])
    with pytest.raises(BackEndError, match="this one was closed"):
        opened(asked, 1, sampling=GREEDY, seed=1)
    assert tokens(answers) == tokens(with_hf(other, asked, 1, GREEDY))
    assert answers != policy(asked, 1, sampling=GREEDY, seed=1)


def test_an_adapter_is_merged_into_its_base(model, tmp_path):
    settings = json.loads((model / "generation_config.json").read_text())
    base = shutil.copytree(model, tmp_path / "base")
    # Of several tokens that end an answer none is forgotten; they stand beside the base.
    settings["eos_token_id"] = [EOS, 10]
    (base / "generation_config.json").write_text(json.dumps(settings))
    adapter = small_adapter(base, tmp_path / "adapter")

    asked = prompts()
    with open_policy(checkpoint(adapter), config=config(base)) as opened:
        answers = opened(asked, 1, sampling=GREEDY, seed=1)
    assert tokens(answers) == tokens(with_hf(adapter, asked, 1, GREEDY))
    assert tokens(answers) != tokens(with_hf(base, asked, 1, GREEDY))
    assert any(group[0].tokens[-1] == 10 for group in answers)


def test_gemma_2_is_the_same_model_for_both_samplers(tmp_path):
    """In the versions of transformers that vLLM needs its capped attention wants care."""
    wide = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 192}
    caps = {"attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 32, "sliding_window": 8}
    shape = tiny.SHAPE | wide | caps | {"max_position_embeddings": 128}
    folder = tiny.save_tiny(Gemma2Config(**shape), tmp_path)
    # With large embeddings, which are its output layer too, it would say its last token for ever.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.embed_tokens.weight.data *= 0.05
    model.save_pretrained(folder)

    asked = prompts()
    with open_policy(checkpoint(folder), config=config(folder)) as opened:
        answers = opened(asked, 1, sampling=GREEDY, seed=1)
    assert len({token for (response,) in answers for token in response.tokens}) > 10
    assert tokens(answers) == tokens(with_hf(folder, asked, 1, GREEDY))


SLEEPER = """
import sys, time
from pathlib import Path
from eva.backends.vllm import open_policy
from tests.vllm.engines import checkpoint, config

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with open_policy(checkpoint(folder), config=config(folder)):
        Path(sys.argv[2]).touch()
        time.sleep(1000)
"""


@pytest.mark.parametrize("moment", ["open", "loading"])
def test_an_engine_ends_with_eva_even_if_eva_is_killed(model, tmp_path, moment):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleeper.py"), str(model), str(ready)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    started = ready.exists if moment == "open" else lambda: engines(process.pid)
    assert waited(started)
    left = engines(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left
    assert waited(lambda: not any(one.is_running() for one in left), 60)


# ------------------------------------------------------------------ refusals


def sentence(folder, error=BackEndError, **choices):
    with (
        pytest.raises(error) as raised,
        open_policy(checkpoint(folder), config=config(folder, **choices)),
    ):
        pass
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_options_are_those_of_vllm(model):
    text = sentence(model, RecipeError, options={"max_num_batched_token": 1})
    assert "policy.options.max_num_batched_token: vLLM has no such argument" in text
    assert "did you mean 'max_num_batched_tokens'?" in text
    text = sentence(model, RecipeError, options={"max_model_len": 64})
    assert text == "policy.options.max_model_len: set policy.context instead"


def test_what_is_no_model_is_named(tmp_path):
    assert f"the folder {tmp_path / 'nowhere'} does not exist" in sentence(tmp_path / "nowhere")


def test_a_context_that_the_model_does_not_have_is_named(model):
    text = sentence(model, context=4096)
    assert text.startswith(
        f"vLLM cannot load {model} (ValidationError: User-specified max_model_len"
    )


def test_damaged_weights_are_named_and_no_engine_is_left(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "damaged")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    before = len(engines())
    text = sentence(folder)
    assert "SafetensorError" in text or "safetensors" in text
    assert len(engines()) == before
    journal = Path(text.rpartition("its log is ")[2])
    assert "Traceback" in journal.read_text()
    journal.unlink()


@pytest.mark.parametrize("name", ["VLLM::EngineCore", "VLLM::Worker"])
def test_an_engine_that_dies_is_one_sentence(model, name):
    def kill():
        for one in engines():
            if one.name() == name:
                one.kill()

    long = Sampling(temperature=1.0, max_tokens=90)
    with (
        pytest.raises(BackEndError, match="vLLM failed while it answered 18 prompts") as raised,
        open_policy(checkpoint(model), config=config(model, rows=4)) as opened,
    ):
        opened(prompts(), 1, sampling=GREEDY, seed=1)
        Timer(0.3, kill).start()
        opened(prompts(), 500, sampling=long, seed=1)
    text = str(raised.value)
    killed = "its process EngineCore was ended by signal 9"
    assert (killed in text) == (name == "VLLM::EngineCore")
    assert "\n" not in text
    assert not engines()
    Path(text.rpartition("its log is ")[2]).unlink()
