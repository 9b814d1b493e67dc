"""Requests that fail for good: which are given up, and what stops the run, after a kill too."""

import socket
import threading
import time
from contextlib import suppress

import pytest
from aiohttp import web

from eva.errors import BackEndError
from eva.parts.policies import Price
from eva.serving.answers import Account, accounts
from eva.serving.client import Client, Replied
from eva.serving.sending import Failed
from tests.serving.proxy import Status, Threaded, Upstream, completion
from tests.serving.test_client import chat, expected, settings, texts


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


def test_a_request_that_always_fails_while_others_do_not_is_given_up():
    def broken(body):
        return Status(500, {}, "no") if body["seed"] == 3 else completion(body)

    with Upstream(broken) as upstream, Client(settings(upstream.url, attempts=3)) as client:
        replies = client.ask([chat(i) for i in range(6)])
        assert replies[3] == Failed("HTTP 500: no", 500)
        assert [isinstance(reply, Replied) for reply in replies].count(True) == 5
        assert sum(body["seed"] == 3 for body in upstream.bodies) == 3


def one_broken(body):
    return Status(500, {}, "no") if body["seed"] == 0 else completion(body)


def test_a_request_that_always_fails_is_given_up_however_the_run_was_cut(tmp_path):
    given = {"attempts": 2, "patience": 60.0}
    with Upstream(one_broken) as upstream:
        for _ in ("undisturbed", "after a kill"):
            with Client(settings(upstream.url, cache=tmp_path, **given)) as client:
                replies = client.ask([chat(i) for i in range(6)])
            assert replies[0] == Failed("HTTP 500: no", 500)
            assert texts(replies[1:]) == expected(6)[1:]
        assert len(upstream.bodies) == 5 + 2 * 2


def test_a_request_that_is_always_late_is_given_up_though_that_takes_longer_than_the_patience():
    given = {"attempts": 3, "patience": 0.5, "deadline": 0.4}
    with Upstream(delay=10) as upstream, Client(settings(upstream.url, **given)) as client:
        assert client.ask([chat(0)]) == [Failed("no answer within 0.4 s")]
        assert len(upstream.bodies) == 3


def test_a_server_that_fails_with_everything_stops_the_run_though_it_answers_a_knock():
    given = {"attempts": 1, "patience": 1.0}
    with (
        Upstream(lambda _: Status(500, {}, "no")) as upstream,
        Client(settings(upstream.url, **given)) as client,
        pytest.raises(BackEndError, match=r"no server answered for 1 s .*HTTP 500: no"),
    ):
        client.ask([chat(i) for i in range(50)])


def test_many_that_always_fail_are_given_up_where_many_more_were_kept(tmp_path):
    given = {"attempts": 1, "patience": 1.0, "cache": tmp_path}

    def broken(body):
        return Status(500) if body["seed"] % 20 == 0 else completion(body)

    with Upstream(broken) as upstream:
        with Client(settings(upstream.url, **given)) as client:
            client.ask([chat(i) for i in range(200) if i % 20])  # 190 answers, and a kill
        with Client(settings(upstream.url, **given)) as client:
            replies = client.ask([chat(i) for i in range(200)])
    assert sum(isinstance(reply, Failed) for reply in replies) == 10


def test_a_proxy_whose_server_is_away_is_no_sign_of_life():
    async def away(request):
        await request.read()
        return web.Response(status=502)

    with (
        Threaded(away) as proxy,
        Client(settings(proxy.url, attempts=1, patience=1.0)) as client,
        pytest.raises(BackEndError, match="no server answered for 1 s"),
    ):
        client.ask([chat(1)])


def test_an_empty_account_stops_the_run_and_keeps_what_is_in_flight(tmp_path):
    words = '{"error": {"message": "Insufficient Balance"}}'

    def paid(body):
        time.sleep(0.3 if body["seed"] == 0 else 0.0)
        return Status(402, {}, words) if body["seed"] == 1 else completion(body)

    with (
        Upstream(paid) as upstream,
        Client(settings(upstream.url, cache=tmp_path, concurrency=2)) as client,
        pytest.raises(BackEndError, match=r"is empty \(HTTP 402: Insufficient Balance\); fill it"),
    ):
        client.ask([chat(i) for i in range(20)])
    assert accounts(tmp_path)["http m"].requests == len(upstream.bodies) - 1


def test_a_single_403_is_about_its_request_after_a_kill_too(tmp_path):
    def moderated(body):
        return Status(403, {}, "flagged") if body["seed"] == 0 else completion(body)

    with Upstream(moderated) as upstream:
        for _ in ("undisturbed", "after a kill"):
            with Client(settings(upstream.url, cache=tmp_path)) as client:
                replies = client.ask([chat(i) for i in range(4)])
            assert replies[0] == Failed("HTTP 403: flagged", 403)


def test_a_wait_that_a_server_asks_for_is_bounded_by_the_patience():
    begun = time.monotonic()
    with (
        Upstream(lambda _: Status(429, {"Retry-After": "86400"})) as upstream,
        Client(settings(upstream.url, patience=1.0)) as client,
        pytest.raises(BackEndError, match=r"no server answered for 1 s .*HTTP 429"),
    ):
        client.ask([chat(i) for i in range(30)])
    assert time.monotonic() - begun < 5


def test_trouble_with_tls_at_one_of_two_servers_leaves_the_other(upstream):
    with socket.socket() as speaks_plainly:
        speaks_plainly.bind(("127.0.0.1", 0))
        speaks_plainly.listen(50)

        def answer():
            with suppress(OSError):
                while True:
                    connection, _ = speaks_plainly.accept()
                    with connection:
                        connection.recv(100)
                        connection.sendall(b"HTTP/1.1 503 busy\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        other = f"https://127.0.0.1:{speaks_plainly.getsockname()[1]}"
        with Client(settings(other, upstream.url)) as client:
            assert texts(client.ask([chat(i) for i in range(6)])) == expected(6)
        speaks_plainly.shutdown(socket.SHUT_RDWR)


async def nothing(session, url):
    """Prepares a server that needs no preparation."""


@pytest.mark.parametrize("prepare", [None, nothing])
def test_an_address_that_is_none_stops_at_once(prepare):
    begun = time.monotonic()
    with (
        Client(settings("node1:8000/v1"), prepare=prepare) as client,
        pytest.raises(BackEndError, match=r"node1:8000/v1 cannot be asked .*correct the address"),
    ):
        client.ask([chat(1)])
    assert time.monotonic() - begun < 5


def test_a_preparation_that_fails_in_its_own_way_is_one_sentence(upstream):
    async def odd(session, url):
        raise LookupError("odd")

    with (
        Client(settings(upstream.url), prepare=odd) as client,
        pytest.raises(BackEndError, match=r"cannot be made ready \(LookupError: odd\)"),
    ):
        client.ask([chat(1)])


def test_a_budget_needs_servers_that_count_tokens_and_keeps_what_they_answered(tmp_path):
    price = Price(input=1.0, output=1.0)
    with Upstream(lambda body: {**completion(body), "usage": None}, delay=0.1) as silent:
        given = settings(silent.url, cache=tmp_path, concurrency=4, price=price, budget=1.0)
        with Client(given) as client:
            with pytest.raises(BackEndError, match="do not say how many tokens"):
                client.ask([chat(i) for i in range(50)])
            assert client.account == Account(requests=4)
        with Client(settings(silent.url, cache=tmp_path)) as client:
            assert texts(client.ask([chat(i) for i in range(4)])) == expected(4)
        assert len(silent.bodies) == 4
