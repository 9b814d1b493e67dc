"""Servers as a policy: what they are asked, what becomes of their answers, whose weights answer."""

import sys

import pytest
import torch
from pydantic import ValidationError

from eva import seeds
from eva.adapt import chains
from eva.backends import hf, http
from eva.errors import BackEndError, RecipeError
from eva.parts.policies import HfPolicy, HttpPolicy, Serve
from eva.records import Checkpoint, Message, Prompt, Response, Sampling
from eva.serving.answers import accounts
from tests.serving.proxy import FaultyProxy, Status, Upstream, completion, sometimes
from tests.serving.test_server import Running
from tests.tiny import EOS, tiny_llama, tiny_qwen3

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=12)
THETA = Checkpoint(uri="m", id="theta")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prompts(count):
    return [Prompt(messages=(Message(role="user", content=f"w{i} w1"),)) for i in range(count)]


def config(*urls, **given):
    return HttpPolicy(kind="http", **{"model": "m", "urls": urls, "attempts": 12, **given})


def answers(given, count=4, n=2, *, checkpoint=THETA, cache=None, seed=7, sampling=SAMPLING):
    with http.open_policy(checkpoint, config=given, cache=cache) as policy:
        return policy(prompts(count), n, sampling=sampling, seed=seed)


def test_a_prompt_is_one_request_with_a_seed_of_its_own():
    with Upstream() as upstream:
        groups = answers(config(f"{upstream.url}/v1/"))
    by_text = {body["messages"][0]["content"]: body for body in upstream.bodies}
    assert set(upstream.routes) == {"/v1/chat/completions"}
    assert len(by_text) == len(upstream.bodies) == 4
    for prompt, group in zip(prompts(4), groups, strict=True):
        said = prompt.messages[0].content
        seed = seeds.child(7, prompt.id) >> 32  # 31 of 63 bits
        assert by_text[said] == {
            "model": "m",
            "messages": [{"role": "user", "content": said}],
            "n": 2,
            "seed": seed,
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 12,
            "return_token_ids": True,
        }
        assert group == [
            Response(text=f"{said[::-1]} {seed} {i}", tokens=(len(said), i, 2)) for i in range(2)
        ]


def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "secret")
    with Upstream() as upstream:
        answers(config(upstream.url, key="MY_KEY"), cache=tmp_path)
    assert {head["Authorization"] for head in upstream.heads} == {"Bearer secret"}
    assert b"secret" not in (tmp_path / "answers.sqlite").read_bytes()


def test_a_key_that_is_not_set_is_a_wrong_recipe(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(RecipeError, match="environment variable MY_KEY, which is not set"):
        answers(config("http://127.0.0.1:1", key="MY_KEY"))


def test_keys_of_the_body_are_added_and_null_leaves_one_out():
    body = {"reasoning_effort": "low", "max_tokens": None, "max_completion_tokens": 9}
    with Upstream() as upstream:
        answers(config(upstream.url, body=body), count=1)
    (sent,) = upstream.bodies
    assert sent["reasoning_effort"] == "low"
    assert "max_tokens" not in sent
    assert sent["max_completion_tokens"] == 9


def test_a_name_that_servers_know_the_model_by():
    with Upstream() as upstream:
        answers(config(upstream.url, name="short"), count=1)
    assert upstream.bodies[0]["model"] == "short"


def reply_of(**choice):
    given = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return {"choices": [{**given, **choice}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, Response(text="hi")),
        ({"finish_reason": "length"}, Response(text="hi", finish="length")),
        ({"token_ids": [4, 2]}, Response(text="hi", tokens=(4, 2))),
        (
            {"token_ids": [4, 2], "logprobs": {"content": [{"logprob": -1.5}, {"logprob": 0.0}]}},
            Response(text="hi", tokens=(4, 2), logprobs=(-1.5, 0.0)),
        ),
        ({"message": {"content": None, "refusal": "I cannot"}}, Response(text="I cannot")),
        (
            {"finish_reason": "content_filter"},
            Response(
                text="",
                finish="error",
                error="the server ended the answer with the reason 'content_filter'",
            ),
        ),
        (
            {"token_ids": [4], "logprobs": {"content": [None]}},
            Response(text="hi", tokens=(4,)),
        ),
        (
            {"token_ids": [4], "logprobs": {"content": [{"logprob": None}]}},
            Response(text="hi", tokens=(4,)),
        ),
        (
            {"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [{}]}},
            Response(text="", finish="error", error="the server called a tool and wrote no text"),
        ),
        ({"finish_reason": "tool_calls"}, Response(text="hi")),
    ],
)
def test_a_choice_becomes_a_response(choice, expected):
    with Upstream(lambda _: reply_of(**choice)) as upstream:
        assert answers(config(upstream.url), count=1, n=1) == [[expected]]


def test_a_refused_prompt_is_a_record_with_a_reason():
    def picky(body):
        if body["messages"][0]["content"].startswith("w1 "):
            return Status(400, {}, '{"error": {"message": "too long"}}')
        return completion(body)

    with Upstream(picky) as upstream:
        groups = answers(config(upstream.url))
    assert groups[1] == [Response(text="", finish="error", error="HTTP 400: too long")] * 2
    assert [group[0].finish for group in groups] == ["stop", "error", "stop", "stop"]


def test_what_no_prompt_can_pass_with_stops_the_run():
    with (
        Upstream(lambda _: Status(400, {}, "temperature is unsupported")) as upstream,
        pytest.raises(
            BackEndError, match=r"refuse each of 4 requests .*temperature is unsupported"
        ),
    ):
        answers(config(upstream.url))


def test_a_server_that_knows_no_token_ids_is_asked_without():
    def strict(body):
        if "return_token_ids" in body:
            return Status(400, {}, "Unknown parameter: 'return_token_ids'")
        reply = completion(body)
        for choice in reply["choices"]:
            del choice["token_ids"]
        return reply

    with (
        Upstream(strict) as upstream,
        http.open_policy(THETA, config=config(upstream.url), cache=None) as policy,
    ):
        groups = policy(prompts(4), 2, sampling=SAMPLING, seed=7)
        assert {response.tokens for group in groups for response in group} == {None}
        before = len(upstream.bodies)
        policy(prompts(3), 2, sampling=SAMPLING, seed=8)
        assert len(upstream.bodies) == before + 3  # remembered


def test_choices_that_are_missing_are_asked_for_with_other_seeds():
    def single(body):
        return {**completion(body), "choices": completion(body)["choices"][:1]}

    with Upstream(single) as upstream:
        groups = answers(config(upstream.url), count=2, n=4)
    assert [len({response.text for response in group}) for group in groups] == [4, 4]
    assert len(upstream.bodies) == 8
    assert len({body["seed"] for body in upstream.bodies}) == 8


def test_paid_answers_are_found_again_and_new_weights_never_get_old_ones(tmp_path):
    theta_1 = Checkpoint(uri="m", id="theta_1")
    with Upstream() as upstream:
        given = config(upstream.url)
        first = answers(given, cache=tmp_path)
        assert answers(given, cache=tmp_path) == first
        assert len(upstream.bodies) == 4
        answers(given, cache=tmp_path, checkpoint=theta_1)
        assert len(upstream.bodies) == 8
        answers(given, cache=tmp_path, seed=8)
        assert len(upstream.bodies) == 12
    assert accounts(tmp_path)["http m"].hits == 4


def hidden(policy):
    """The same policy, which cannot chain."""
    return lambda *args, **given: policy(*args, **given)


def talk(heard, ends):
    """Chain i asks `ends[i]` prompts, each after the answer to the one before."""

    def following(i, answer):
        heard.setdefault(i, []).append(answer)
        said = answer.text if answer else f"w{i}"
        return prompt(said) if len(heard[i]) <= ends[i] else None

    return following


def prompt(text):
    return Prompt(messages=(Message(role="user", content=text),))


def test_chains_give_what_asking_step_by_step_gives():
    ends, sides = [3, 0, 1, 5, 2, 0], []
    with Upstream() as upstream:
        for lift in (lambda policy: policy, hidden):
            heard = {}
            with http.open_policy(THETA, config=config(upstream.url), cache=None) as policy:
                chains(lift(policy), len(ends), talk(heard, ends), sampling=SAMPLING, seed=7)
            sides.append(heard)
        asked, step_by_step = upstream.bodies[:11], upstream.bodies[11:]
    texts = [{i: [a and a.text for a in told] for i, told in heard.items()} for heard in sides]
    assert texts[0] == texts[1]
    assert [len(told) - 1 for told in sides[0].values()] == ends
    assert not any("return_token_ids" in body for body in asked)
    seeds_of = [sorted(body["seed"] for body in bodies) for bodies in (asked, step_by_step)]
    assert seeds_of[0] == seeds_of[1]


def test_a_chain_goes_on_from_a_refusal_as_its_asker_will():
    def picky(body):
        is_refused = body["messages"][0]["content"] == "w1"
        return Status(400, {}, "too long") if is_refused else completion(body)

    heard = {}
    with (
        Upstream(picky) as upstream,
        http.open_policy(THETA, config=config(upstream.url), cache=None) as policy,
    ):
        chains(policy, 3, talk(heard, [2, 1, 1]), sampling=SAMPLING, seed=7)
    assert heard[1] == [None, Response(text="", finish="error", error="HTTP 400: too long")]
    assert [answer.finish for told in heard.values() for answer in told[1:]] == [
        *("stop", "stop"),
        "error",
        "stop",
    ]


def test_faults_change_no_answer():
    with Upstream() as upstream:
        sound = answers(config(upstream.url), count=40)
        with FaultyProxy(upstream.url, sometimes(Status(500), 0.2)) as proxy:
            assert answers(config(proxy.url), count=40) == sound


# ------------------------------------------------------------- eva's own servers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return (
        tiny_llama(tmp_path_factory.mktemp("llama")),
        tiny_qwen3(tmp_path_factory.mktemp("qwen3")),
    )


def in_process(folder, count=4, n=2):
    checkpoint = Checkpoint(uri=str(folder), id="x")
    given = HfPolicy(model=str(folder), device="cpu")
    with hf.open_policy(checkpoint, given) as policy:
        return policy(prompts(count), n, sampling=SAMPLING, seed=7)


def tokens(groups):
    return [[response.tokens for response in group] for group in groups]


def test_eva_servers_load_each_checkpoint_and_draw_as_the_policy_in_process(folders):
    with Running(folders[0]) as one, Running(folders[0]) as two:
        given = config(one.url, two.url, name="tiny", reload="eva")
        for folder in (folders[1], folders[0]):
            checkpoint = Checkpoint(uri=str(folder), id=folder.name)
            found = answers(given, checkpoint=checkpoint)
            assert tokens(found) == tokens(in_process(folder))
            assert any(r.tokens[-1] == EOS for group in found for r in group if r.tokens)


def test_a_server_that_cannot_load_the_checkpoint_is_one_sentence(folders, tmp_path):
    checkpoint = Checkpoint(uri=str(tmp_path / "none"), id="x")
    with (
        Running(folders[0]) as one,
        pytest.raises(BackEndError, match=r"did not load the checkpoint .*there is no folder"),
    ):
        answers(config(one.url, name="tiny", reload="eva"), checkpoint=checkpoint)


def test_a_server_that_was_away_loads_the_checkpoint_again():
    loads = []

    def told(body):
        if "messages" in body:
            return completion(body)
        loads.append(body)
        return {}

    with (
        Upstream(told) as upstream,
        http.open_policy(THETA, config=config(upstream.url, reload="eva"), cache=None) as policy,
    ):
        policy(prompts(2), 2, sampling=SAMPLING, seed=1)
        upstream.die()
        upstream.come_back()
        policy(prompts(2), 2, sampling=SAMPLING, seed=2)
    assert loads == [{"model": "m"}] * 2


def test_vllm_is_told_in_its_own_words(tmp_path):
    with Upstream(lambda body: completion(body) if "messages" in body else {}) as upstream:
        answers(config(f"{upstream.url}/v1", reload="vllm"), count=1)
        assert upstream.routes == ["/collective_rpc", "/reset_prefix_cache", "/v1/chat/completions"]
        assert upstream.bodies[0] == {"method": "reload_weights", "kwargs": {"weights_path": "m"}}
    (tmp_path / "adapter_config.json").write_text("{}")
    adapter = Checkpoint(uri=str(tmp_path), id="abc")
    with Upstream(lambda body: completion(body) if "messages" in body else {}) as upstream:
        answers(config(f"{upstream.url}/v1", reload="vllm"), count=1, checkpoint=adapter)
        assert upstream.routes == ["/v1/load_lora_adapter", "/v1/chat/completions"]
        assert upstream.bodies[0] == {"lora_name": "eva-abc", "lora_path": str(tmp_path)}
        assert upstream.bodies[1]["model"] == "eva-abc"


def test_vllm_without_its_dev_mode_is_one_sentence():
    with (
        Upstream(lambda _: Status(404, {}, "Not Found")) as upstream,
        pytest.raises(BackEndError, match="start it with VLLM_SERVER_DEV_MODE=1"),
    ):
        answers(config(upstream.url, reload="vllm"))


def test_servers_that_eva_starts_answer_as_the_policy_in_process(folders, tmp_path):
    words = (sys.executable, "-m", "eva", "serve", "{model}", "--port", "{port}")
    serve = Serve(command=(*words, "--device", "cpu", "--threads", "1"), count=2, ready=120.0)
    given = config(serve=serve)
    checkpoint = Checkpoint(uri=str(folders[0]), id="theta")
    found = answers(given, checkpoint=checkpoint, cache=tmp_path)
    assert tokens(found) == tokens(in_process(folders[0]))
    assert (tmp_path / "servers" / "m" / "server_1.log").exists()


def test_a_budget_needs_a_price():
    with pytest.raises(ValidationError, match="budget needs price"):
        config("http://x", budget=1.0)
