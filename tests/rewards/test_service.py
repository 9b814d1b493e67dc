"""A real service on the loopback: rewards, missing ones, failures, keys."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from aiohttp import web

from eva.errors import BackEndError, RecipeError
from eva.parts.rewards import HttpReward
from eva.protocols import Releasable
from eva.records import Message, Prompt
from eva.rewards.service import Service
from tests.rewards.models import failed, group

ASK = Prompt(
    messages=(
        Message(role="system", content="Be brief."),
        Message(role="user", content="Zürich \u2028 {x}"),
    ),
    data={"answer": [1, None]},
)
OTHER = Prompt(messages=(Message(role="user", content="other"),))


@contextmanager
def served(answer: Callable[[dict, web.Request], web.Response]) -> Iterator[str]:
    """The address of a service that answers so, in a thread of its own."""
    loop = asyncio.new_event_loop()
    ready, address = threading.Event(), []

    async def handle(request: web.Request) -> web.Response:
        return answer(await request.json(), request)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/score", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        address.append(f"http://{host}:{port}/score")
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextmanager
def service(url: str, cache=None, **choices) -> Iterator[Service]:
    reward = Service(HttpReward(kind="http", urls=(url,), **choices), cache)
    try:
        yield reward
    finally:
        reward.release()


def lengths(body: dict, request: web.Request) -> web.Response:
    return web.json_response({"rewards": [len(text) for text in body["responses"]]})


def test_each_group_is_one_request_with_turns_texts_and_data():
    seen = []

    def answer(body, request):
        seen.append(body)
        return lengths(body, request)

    with served(answer) as url, service(url) as reward:
        found = reward([ASK, OTHER], [group("a", "bb"), group("", "cccc")])
    assert found.dtype == np.float64
    assert found.tolist() == [[1.0, 2.0], [0.0, 4.0]]
    turns = [{"role": turn.role, "content": turn.content} for turn in ASK.messages]
    wanted = {"prompt": turns, "responses": ["a", "bb"], "data": {"answer": [1, None]}}
    assert wanted in seen
    assert len(seen) == 2


def test_rewards_keep_their_places_however_the_service_dawdles():
    prompts = [Prompt(messages=(Message(role="user", content=str(i)),)) for i in range(50)]
    responses = [group(*("x" * (i + j) for j in range(3))) for i in range(50)]
    with served(lengths) as url, service(url, concurrency=7) as reward:
        found = reward(prompts, responses)
    assert found.tolist() == [[i, i + 1, i + 2] for i in range(50)]


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ([1.0], "no list"),
        ("text", "no list"),
        ({"a": 1}, "no list"),
        ([1.0, None], "null"),
        ([1.0, "2"], "something else"),
        ([1.0, True], "something else"),
        ([1.0, [2.0]], "something else"),
    ],
)
def test_what_is_no_number_is_missing_with_a_reason(rewards, reason, caplog):
    def answer(body, request):
        return web.json_response({"rewards": rewards})

    with (
        served(answer) as url,
        service(url, attempts=2) as reward,
        caplog.at_level(logging.WARNING, "eva"),
    ):
        found = reward([ASK], [group("a", "b")])
    assert np.isnan(found[0, 1])
    assert np.isnan(found[0, 0]) == (reason == "no list")
    assert reason in caplog.text
    assert f"{int(np.isnan(found).sum())} of 2 rewards" in caplog.text


def test_an_answer_that_the_policy_could_not_give_is_not_sent():
    seen = []

    def answer(body, request):
        seen.append(body["responses"])
        return lengths(body, request)

    with served(answer) as url, service(url) as reward:
        found = reward([ASK, OTHER], [[failed(), *group("aa")], [failed(), failed()]])
    np.testing.assert_array_equal(found, [[np.nan, 2.0], [np.nan, np.nan]])
    assert seen == [["aa"]]


def test_a_failure_of_the_moment_is_tried_again():
    failures = iter([True, True])

    def answer(body, request):
        return web.Response(status=500) if next(failures, False) else lengths(body, request)

    with served(answer) as url, service(url) as reward:
        assert reward([ASK], [group("a", "bb")]).tolist() == [[1.0, 2.0]]


def test_a_request_that_always_fails_is_missing_while_others_go_on(caplog):
    def answer(body, request):
        wrong = body["prompt"][0]["content"] == "other"
        return web.json_response({"error": "no"}, status=422) if wrong else lengths(body, request)

    with served(answer) as url, service(url) as reward, caplog.at_level(logging.WARNING, "eva"):
        found = reward([ASK, OTHER], [group("a"), group("b")])
    np.testing.assert_array_equal(found, [[1.0], [np.nan]])
    assert "HTTP 422: no" in caplog.text


@pytest.mark.parametrize("failure", [{"error": "no model"}, {"rewards": [1.0]}, {"rewards": "x"}])
def test_a_failure_with_http_200_is_not_kept(failure, tmp_path):
    is_broken = True

    def answer(body, request):
        return web.json_response(failure) if is_broken else lengths(body, request)

    with served(answer) as url:
        with service(url, cache=tmp_path, attempts=2) as reward:
            assert np.isnan(reward([ASK], [group("a", "bb")])).all()
        is_broken = False
        with service(url, cache=tmp_path) as reward:
            assert reward([ASK], [group("a", "bb")]).tolist() == [[1.0, 2.0]]


def test_what_was_answered_is_not_asked_again(tmp_path):
    counts = []

    def answer(body, request):
        counts.append(1)
        return lengths(body, request)

    with served(answer) as url:
        for _ in range(2):
            with service(url, cache=tmp_path) as reward:
                assert reward([ASK], [group("a", "bb")]).tolist() == [[1.0, 2.0]]
    assert len(counts) == 1


def test_the_key_is_sent_and_stays_secret(monkeypatch):
    seen = []

    def answer(body, request):
        seen.append(request.headers["Authorization"])
        return lengths(body, request)

    monkeypatch.setenv("OWN_KEY", "s3cret")
    with served(answer) as url, service(url, key="OWN_KEY") as reward:
        reward([ASK], [group("a")])
    assert seen == ["Bearer s3cret"]
    monkeypatch.delenv("OWN_KEY")
    with pytest.raises(RecipeError, match="OWN_KEY, which is not set"):
        Service(HttpReward(kind="http", urls=(url,), key="OWN_KEY"), None)


def test_a_service_that_is_not_there_is_one_sentence():
    with (
        service("http://127.0.0.1:9/score", patience=0.2) as reward,
        pytest.raises(BackEndError, match="no server answered"),
    ):
        reward([ASK], [group("a")])


def test_it_is_released_and_asked_again():
    with served(lengths) as url, service(url) as reward:
        assert isinstance(reward, Releasable)
        before = threading.active_count()
        reward([ASK], [group("a")])
        reward.release()
        assert threading.active_count() == before
        assert reward([ASK], [group("aa")]).tolist() == [[2.0]]
