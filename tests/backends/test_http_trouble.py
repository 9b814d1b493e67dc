"""Servers as a policy in trouble: failures that look like answers, keys, recipes that cannot do."""

import pytest
from aiohttp import web
from pydantic import ValidationError

from eva.backends import http
from eva.errors import BackEndError
from eva.parts.policies import Serve
from eva.records import Checkpoint
from eva.serving.answers import accounts
from tests.backends.test_http import SAMPLING, THETA, answers, config, prompts, reply_of
from tests.serving.proxy import Status, Threaded, Upstream, completion


def test_a_key_that_a_server_repeats_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    words = '{"error": {"message": "flagged for sk-secret, sk-secret"}}'

    def repeats(body):
        is_bad = body["messages"][0]["content"].startswith("w1 ")
        return Status(400, {}, words) if is_bad else completion(body)

    with Upstream(repeats) as upstream:
        groups = answers(config(upstream.url, key="MY_KEY"), count=2)
    assert groups[1][0].error == "HTTP 400: flagged for ***, ***"
    for order in ("reload", "ask"):
        told = {"reload": "eva", "ask": "none"}[order]
        with (
            Upstream(lambda _: Status(401, {}, words)) as upstream,
            pytest.raises(BackEndError, match=r"flagged for \*\*\*") as caught,
        ):
            answers(config(upstream.url, key="MY_KEY", reload=told))
        assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"choices": [], "usage": {}}, "gave no choice"),
        ({"error": {"message": "no upstream", "code": 502}}, "gave no choice: no upstream"),
        ({"choices": [1]}, "gave a choice that is no object"),
        (reply_of(finish_reason=None), "ended the answer with the reason None"),
        (reply_of(finish_reason="error"), "ended the answer with the reason 'error'"),
    ],
)
def test_a_failure_with_http_200_is_tried_again_and_never_kept(failure, words, tmp_path):
    is_broken = True
    with Upstream(lambda body: failure if is_broken else completion(body)) as upstream:
        given = config(upstream.url, attempts=2)
        ((one, other),) = answers(given, count=1, n=2, cache=tmp_path)
        assert one == other
        assert one.finish == "error"
        assert words in one.error
        assert len(upstream.bodies) == 2
        is_broken = False
        ((one, other),) = answers(given, count=1, n=2, cache=tmp_path)
        assert (one.finish, other.finish) == ("stop", "stop")
        assert accounts(tmp_path)["http m"].requests == 1


@pytest.mark.parametrize("seed", [None, 5])
def test_two_draws_are_two_whatever_seed_the_recipe_sends(seed, tmp_path):
    said = iter(range(100))

    def single(body):
        return reply_of(message={"content": f"draw {next(said)}"})

    with Upstream(single) as upstream:
        given = config(upstream.url, body={"seed": seed})
        (group,) = answers(given, count=1, n=3, cache=tmp_path)
        (later,) = answers(given, count=1, n=1, cache=tmp_path, seed=8)
        assert {body.get("seed") for body in upstream.bodies} == {seed}
    assert len({response.text for response in [*group, *later]}) == 4


def test_one_failure_of_the_moment_does_not_end_token_ids():
    def strict(body):
        if body["messages"][0]["content"].startswith("w0 "):
            return Status(500 if "return_token_ids" not in body else 400)
        reply = completion(body)
        for choice in reply["choices"]:
            del choice["token_ids"]
        return reply

    with (
        Upstream(strict) as upstream,
        http.open_policy(THETA, config=config(upstream.url, attempts=1), cache=None) as policy,
    ):
        policy(prompts(2), 1, sampling=SAMPLING, seed=7)
        before = len(upstream.bodies)
        policy(prompts(2)[1:], 1, sampling=SAMPLING, seed=8)
        assert "return_token_ids" in upstream.bodies[before]


def test_models_that_eva_starts_have_a_folder_of_logs_each():
    serve = Serve(command=("x",))
    names = [http.folder_name(config(serve=serve, model=m)) for m in ("a/b c", "/x/ä", "..")]
    assert names == ["a-b-c", "x", "model"]
    assert http.folder_name(config(serve=serve, name="short")) == "short"


def test_an_address_names_its_scheme():
    with pytest.raises(ValidationError, match=r"http:// or https://, got 'node1:8000/v1'"):
        config("http://a", "node1:8000/v1")


@pytest.mark.parametrize("given", [{"serve": Serve(command=("x",))}, {"reload": "vllm"}])
def test_a_revision_that_servers_would_not_get_is_refused(given):
    urls = () if "serve" in given else ("http://x",)
    with pytest.raises(ValidationError, match="revision is not passed on to servers"):
        config(*urls, revision="v2", **given)
    assert config("http://x", revision="v2").revision == "v2"  # its servers have it already


def test_vllm_that_lists_no_models_is_one_sentence(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    adapter = Checkpoint(uri=str(tmp_path), id="abc")

    async def page(request):
        await request.read()
        return web.Response(text="<html>ok</html>")

    with (
        Threaded(page) as server,
        pytest.raises(BackEndError, match=r"/v1/models gives no list of models .*<html>"),
    ):
        answers(config(f"{server.url}/v1", reload="vllm"), count=1, checkpoint=adapter)
