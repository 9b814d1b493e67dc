"""`eva serve` over real sockets: a tiny model, asked as OpenAI's clients ask."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from eva.backends import hf
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Message, Prompt, Sampling
from eva.seeds import child
from eva.serving import server
from tests.tiny import EOS, tiny_llama, tiny_qwen3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return (
        tiny_llama(tmp_path_factory.mktemp("llama")),
        tiny_qwen3(tmp_path_factory.mktemp("qwen3")),
    )


class Running:
    """eva's server in a thread of its own."""

    def __init__(self, folder):
        self._folder = folder
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()

    async def _serve(self):
        self._end, self._loop = asyncio.Event(), asyncio.get_running_loop()
        config = HfPolicy(model=str(self._folder), device="cpu", rows=64)
        async with server.serving(config, "tiny", "127.0.0.1", 0) as self.url:
            self._ready.set()
            await self._end.wait()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


@pytest.fixture
def running(folders):
    with Running(folders[0]) as running:
        yield running


def posted(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def chat(running, words="w1 w2", **given):
    body = {"messages": [{"role": "user", "content": words}], "max_tokens": 8, **given}
    return posted(f"{running.url}/chat/completions", body)


def refusal(answer):
    status, said = answer
    return status, said["error"]["message"]


def texts(answer):
    assert answer[0] == 200, answer
    return [choice["message"]["content"] for choice in answer[1]["choices"]]


def test_a_chat_is_answered_with_choices_tokens_and_usage(running):
    _, said = chat(running, n=3, seed=5, return_token_ids=True, logprobs=True)
    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2]
    for choice in said["choices"]:
        ids = choice["token_ids"]
        assert choice["finish_reason"] == ("stop" if ids[-1] == EOS else "length")
        tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
        assert tokens == [f"token_id:{i}" for i in ids]
        assert all(entry["logprob"] <= 0 for entry in choice["logprobs"]["content"])
    written = sum(len(choice["token_ids"]) for choice in said["choices"])
    # <bos> <user> w1 w2 <assistant>
    assert said["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": written,
        "total_tokens": 5 + written,
    }


def test_what_is_not_asked_for_is_not_sent(running):
    (choice,) = chat(running, seed=5)[1]["choices"]
    assert set(choice) == {"index", "message", "finish_reason"}


def test_a_seeded_answer_does_not_depend_on_what_is_asked_beside_it(running):
    alone = [texts(chat(running, f"w{i} w3", seed=i, n=2)) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(
            pool.map(lambda i: texts(chat(running, f"w{i} w3", seed=i, n=2)), range(12))
        )
        # Others beside them, with another n and another sampling.
        mixed = list(
            pool.map(
                lambda i: texts(
                    chat(running, f"w{i // 2} w3", seed=i // 2, n=2)
                    if i % 2 == 0
                    else chat(running, "w9", n=3, temperature=0.3)
                ),
                range(24),
            )
        )[::2]
    assert alone == together == mixed
    assert len({text for group in alone for text in group}) > 12


def test_no_seed_is_another_answer_each_time(running):
    assert len({texts(chat(running))[0] for _ in range(8)}) > 1


def test_the_same_seed_draws_what_the_policy_in_process_draws(running, folders):
    prompts = [Prompt(messages=(Message(role="user", content=f"w{i} w5"),)) for i in range(4)]
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=8)
    config = HfPolicy(model=str(folders[0]), device="cpu")
    with hf.open_policy(Checkpoint(uri=str(folders[0]), id="x"), config) as policy:
        groups = policy(prompts, 3, sampling=sampling, seed=11)
    for prompt, group in zip(prompts, groups, strict=True):
        given = {"n": 3, "seed": child(11, prompt.id), **sampling.model_dump()}
        assert texts(chat(running, prompt.messages[0].content, **given)) == [r.text for r in group]


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"stop": ["x"]}, 400, "stop: "),
        ({"stream": True}, 400, "stream: "),
        ({"top_k": 5}, 400, "top_k: Extra inputs are not permitted"),
        ({"temperature": -1}, 400, "temperature: "),
        ({"n": 0}, 400, "n: "),
        ({"max_tokens": 60}, 400, "passes the model's context of 64"),
        ({"model": "another"}, 404, "there is no model 'another' here, but 'tiny'"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "role: "),
        ({"messages": [{"role": "user"}]}, 400, "content: "),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(running, given, status, words):
    found, said = refusal(chat(running, **given))
    assert found == status
    assert words in said


def test_a_request_without_a_limit_gets_what_the_context_has_room_for(running):
    body = {"messages": [{"role": "user", "content": "w1 w2"}], "n": None}
    status, answer = posted(f"{running.url}/chat/completions", body)
    assert status == 200
    assert 1 <= answer["usage"]["completion_tokens"] <= 64 - answer["usage"]["prompt_tokens"]
    long = {"messages": [{"role": "user", "content": "w1 " * 70}]}
    assert posted(f"{running.url}/chat/completions", long)[0] == 400


def test_only_folders_are_loaded_on_demand(running, folders):
    route = running.url.removesuffix("/v1") + "/reload"
    status, words = refusal(posted(route, {"model": "some/hub-id"}))
    assert status == 400
    assert "no folder 'some/hub-id'" in words
    assert posted(route, {"model": str(folders[0])})[0] == 200


def test_it_says_that_it_is_there_and_what_it_serves(running):
    with urllib.request.urlopen(running.url.removesuffix("/v1") + "/health") as reply:
        assert json.loads(reply.read()) == {"status": "ok"}
    with urllib.request.urlopen(f"{running.url}/models") as reply:
        (model,) = json.loads(reply.read())["data"]
    assert (model["id"], model["owned_by"]) == ("tiny", "eva")


def test_a_reload_waits_for_requests_in_flight_and_changes_the_answers(running, folders):
    root = running.url.removesuffix("/v1")
    given = {"seed": 3, "n": 2, "temperature": 0.0}
    before = texts(chat(running, **given))
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(chat, running, f"w{i}", max_tokens=50, n=8) for i in range(8)]
        status, said = posted(f"{root}/reload", {"model": str(folders[1])})
        assert (status, said) == (200, {"model": str(folders[1])})
        assert all(one.result()[0] == 200 for one in asked)
    after = texts(chat(running, **given))
    assert before != after
    posted(f"{root}/reload", {"model": str(folders[0])})
    assert texts(chat(running, **given)) == before


def test_a_reload_of_a_wrong_folder_keeps_the_old_weights(running, tmp_path):
    before = texts(chat(running, temperature=0.0))
    status, said = refusal(
        posted(running.url.removesuffix("/v1") + "/reload", {"model": str(tmp_path / "none")})
    )
    assert status == 400
    assert "there is no folder" in said
    assert texts(chat(running, temperature=0.0)) == before


def eva_serve(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "eva", "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_verb_prints_its_address_and_ends_when_asked(folders):
    with eva_serve(str(folders[0]), "--port", "0", "--device", "cpu", "--threads", "1") as run:
        line = run.stdout.readline()
        assert line.startswith(f"serving {folders[0]} at http://127.0.0.1:")
        url = line.split(" at ")[1].strip()
        body = {"messages": [{"role": "user", "content": "w1"}], "model": str(folders[0])}
        status, _ = posted(f"{url}/chat/completions", {**body, "max_tokens": 8})
        run.send_signal(signal.SIGTERM)
        assert status == 200
        assert run.communicate()[1] == ""
    assert run.returncode == 0


def test_a_wrong_model_is_one_sentence(tmp_path):
    with eva_serve(str(tmp_path / "none"), "--port", "0") as run:
        said = run.communicate()[1]
    assert run.returncode == 1
    assert said.count("\n") == 1
    assert "does not exist" in said


def test_a_taken_port_is_one_sentence(running, folders):
    port = running.url.split(":")[2].split("/")[0]
    with eva_serve(str(folders[0]), "--port", port, "--device", "cpu") as run:
        said = run.communicate()[1]
    assert run.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in said
