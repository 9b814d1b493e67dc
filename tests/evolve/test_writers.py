"""Real writers: a model in this process, a server on a socket, and a whole run."""

import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eva.records import Child, Sampling
from eva.stages import rewritten
from tests.evolve.world import evol_instruct, no_policy, parents, scored, self_instruct
from tests.world import contents, played, stage

SELF_PLAY = "creator.evolve={kind: evol_instruct, by: {kind: self}, children: 2}"


class Api(BaseHTTPRequestHandler):
    """OpenAI's chat completions: rewrites the old prompt, and refuses what is about topic 1."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Api.asked += 1
        [message] = body["messages"]
        old = message["content"].split("<old_prompt>\n")[1].split("\n</old_prompt>")[0]
        if "topic 1" in old:
            self.reply(413, {"error": {"message": "too long for me"}})
            return
        text = f"Here you are: <new_prompt>{old} And why, {body['seed']}?</new_prompt>"
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        self.reply(200, {"choices": [choice] * body["n"]})

    def reply(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    Api.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@contextmanager
def served(url, cache):
    """The writer of a recipe that names a server."""
    pytest.importorskip("aiohttp")
    from eva.build.models import writer
    from eva.parts.policies import HttpPolicy

    asked = writer(HttpPolicy(kind="http", model="scribe", urls=(url,), concurrency=8), cache)
    yield asked
    asked.release()


def test_a_served_model_writes_and_what_it_refuses_is_a_flaw(address, tmp_path):
    with served(address, tmp_path) as writer:
        evolve = evol_instruct(writer, children=3)
        written = evolve(parents(4), no_policy, seed=1)

    assert {child.by for child in written} == {"http scribe"}
    assert [child.flaw is None for child in written] == [True] * 3 + [False] * 3 + [True] * 6
    assert all("413" in child.flaw and "too long for me" in child.flaw for child in written[3:6])
    third = written[2].messages[0].content
    assert third.startswith("Explain topic 0 to me. And why, ")
    assert third.count("And why, ") == 3  # a chain: each rewrote the one before
    assert written[2].raw == f"Here you are: <new_prompt>{third}</new_prompt>"


def test_what_was_written_once_is_not_asked_again(address, tmp_path):
    given = [parent for parent in parents(4) if "topic 1" not in str(parent.prompt.messages)]
    runs = []
    for _ in range(2):
        with served(address, tmp_path) as writer:
            runs.append(evol_instruct(writer)(given, no_policy, seed=1))

    assert runs[0] == runs[1]
    assert Api.asked == 12  # three parents with four children


def test_a_model_in_this_process_writes_for_itself(tmp_path):
    pytest.importorskip("torch")
    from eva.backends.hf import open_policy
    from eva.parts.policies import HfPolicy
    from eva.records import Checkpoint
    from tests.tiny import tiny_llama

    folder = tiny_llama(tmp_path)
    (tmp_path / "short.md").write_text("w1 {prompt}")
    fields = {
        "operators": {"short": 1},
        "templates": str(tmp_path),
        "sampling": Sampling(temperature=1.0, top_p=1.0, max_tokens=8),
        "chained": False,
    }
    config = HfPolicy(model=str(folder), device="cpu", dtype="float32")
    with open_policy(Checkpoint(uri=str(folder), id="tiny"), config) as policy:
        write = partial(rewritten, [scored("w2 w3")], policy, seed=1, policy_id="tiny")
        written = write(evolver=evol_instruct(None, **fields))
        assert written == write(evolver=evol_instruct(None, **fields))

    assert {child.by for child in written} == {"self tiny"}
    assert {child.flaw for child in written} <= {
        "no <new_prompt> in the output",
        "the output was cut at the token limit before </new_prompt>",
    }  # a random model follows no form
    assert len({child.raw for child in written}) > 1


@pytest.mark.parametrize("chained", ["true", "false"])
def test_a_run_of_self_play_keeps_flaws_and_goes_on_to_the_same_bytes(tmp_path, chained):
    fields = (SELF_PLAY, f"creator.evolve.chained={chained}", "creator.start=0", "rounds=2")
    played(tmp_path / "a", *fields, "rounds=1")
    played(tmp_path / "a", *fields)
    played(tmp_path / "b", *fields)

    children = stage(tmp_path / "b", 0, "children", Child)
    assert children
    assert {child.gate for child in children} == {"parse"}
    assert all(child.by.startswith("self skill-") for child in children)
    assert all(child.raw and child.sampling for child in children)  # the toy answers with numbers
    same = [{k: v for k, v in contents(tmp_path / run).items() if "rounds" in k} for run in "ab"]
    assert same[0] == same[1]


def test_a_recipe_builds_both_evolvers(tmp_path):
    from eva.build.creators import evolver
    from tests.world import recipe

    for kind, made in (("evol_instruct", evol_instruct(None)), ("self_instruct", self_instruct())):
        part = recipe(f"creator.evolve={{kind: {kind}, by: {{kind: self}}}}").creator.evolve
        assert type(evolver(part, tmp_path, None)) is type(made)
