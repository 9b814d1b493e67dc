"""A reply may bring another request: in which order, by how many workers, and what may go wrong."""

import asyncio
import time

import pytest

from eva.serving.client import Client
from eva.serving.crew import Crew
from eva.serving.sending import Failed
from tests.serving.proxy import Status, Upstream, completion
from tests.serving.test_client import chat, expected, settings, texts


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


def counting(upto):
    """What is asked after the reply to request i: `upto[i]` more requests, 100 apart."""
    asked = dict.fromkeys(range(len(upto)), 0)

    def then(i, reply):
        asked[i] += 1
        return chat(i + 100 * asked[i]) if asked[i] <= upto[i] else None

    return then


def test_a_reply_may_bring_another_request(upstream, tmp_path):
    upto = [2, 0, 1, 3]
    with Client(settings(upstream.url, cache=tmp_path)) as client:
        last = client.ask((chat(i) for i in range(4)), counting(upto))
        assert texts(last) == [texts(client.ask([chat(i + 100 * upto[i])]))[0] for i in range(4)]
        assert len(upstream.bodies) == 4 + sum(upto)  # the last four were kept
        assert client.ask([], counting([])) == []


def test_what_follows_waits_for_what_came_before_it(upstream):
    with Client(settings(upstream.url, concurrency=1)) as client:
        client.ask([chat(i) for i in range(3)], counting([2, 2, 1]))
    assert [body["seed"] for body in upstream.bodies] == [0, 1, 2, 100, 101, 102, 200, 201]


def test_what_follows_is_asked_by_as_many_as_there_are(upstream):
    upstream._delay = 0.05
    with Client(settings(upstream.url, concurrency=8)) as client:
        begin = time.monotonic()
        client.ask([chat(i) for i in range(8)], counting([9] * 8))
        assert time.monotonic() - begin < 2.0  # one after the other they would take 4 seconds


@pytest.mark.parametrize("calls", [2, 40])
def test_a_fault_in_what_decides_reaches_who_asked(upstream, calls):
    def then(i, reply):
        raise KeyError("no such thing")

    with Client(settings(upstream.url)) as client:
        with pytest.raises(KeyError, match="no such thing"):
            client.ask([chat(i) for i in range(calls)], then)
        assert texts(client.ask([chat(1)])) == [expected(2)[1]]


@pytest.mark.parametrize(
    "kind", [StopIteration, asyncio.CancelledError, KeyboardInterrupt, SystemExit]
)
def test_what_would_stop_the_loop_reaches_who_asked_too(upstream, kind):
    def then(i, reply):
        raise kind

    with Client(settings(upstream.url)) as client:
        with pytest.raises(RuntimeError, match=rf"{kind.__name__}\(\) was raised"):
            client.ask([chat(i) for i in range(3)], then)
        assert texts(client.ask([chat(1)])) == [expected(2)[1]]


def test_no_more_workers_than_calls(upstream, monkeypatch):
    sizes = []

    class Noted(Crew):
        def __init__(self, work, size):
            sizes.append(size)
            super().__init__(work, size)

    monkeypatch.setattr("eva.serving.client.Crew", Noted)
    with Client(settings(upstream.url)) as client:
        client.ask([chat(1), chat(2)])
        client.ask((chat(i) for i in range(3)), most=3)
        client.ask(chat(i) for i in range(3))
        client.ask([chat(i) for i in range(50)])
    assert sizes == [2, 3, 16, 16]


def test_a_failure_is_a_reply_too(upstream):
    upstream._reply = lambda body: Status(400) if body["seed"] < 100 else completion(body)
    with Client(settings(upstream.url)) as client:
        found = client.ask([chat(i) for i in range(2)], counting([1, 0]))
    assert [isinstance(reply, Failed) for reply in found] == [False, True]
