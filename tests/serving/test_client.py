"""The client against real sockets that misbehave: every request ends well, and is paid once."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from eva.errors import BackEndError
from eva.parts.policies import Price
from eva.serving.answers import Account, Answers, accounts
from eva.serving.client import Client, Replied, Settings, call
from eva.serving.sending import Failed
from tests.serving.proxy import (
    Cut,
    FaultyProxy,
    Garbage,
    Refuse,
    Stall,
    Status,
    Upstream,
    completion,
    first,
    mixed,
    sometimes,
)

ROUTE = "/chat/completions"


def chat(i, **extra):
    body = {"messages": [{"role": "user", "content": f"say {i}"}], "seed": i}
    return call(ROUTE, body, "theta", **extra)


def settings(*urls, cache=None, **changed):
    given = {"attempts": 12, "deadline": 5.0, "patience": 20.0, "concurrency": 16, **changed}
    return Settings(urls=urls, name="http m", cache=cache, **given)


def texts(replies):
    return [reply.body["choices"][0]["message"]["content"] for reply in replies]


def expected(count):
    return [f"{f'say {i}'[::-1]} {i} 0" for i in range(count)]


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


def test_replies_come_in_the_order_of_the_calls(upstream):
    with Client(settings(upstream.url)) as client:
        assert texts(client.ask(chat(i) for i in range(200))) == expected(200)


def test_no_call_is_no_request(upstream):
    with Client(settings(upstream.url)) as client:
        assert client.ask([]) == []


def test_every_kind_of_fault_is_tried_again_until_all_are_answered(upstream, tmp_path):
    faults = (
        Status(429),
        Status(429, {"Retry-After": "0.1"}),
        Status(500),
        Status(503, {"Retry-After": "0.1"}),
        Status(408),
        Stall(1.0),
        Cut(),
        Refuse(),
        Garbage(),
    )
    with (
        FaultyProxy(upstream.url, mixed(faults, 0.3)) as proxy,
        Client(settings(proxy.url, cache=tmp_path, deadline=0.5)) as client,
    ):
        replies = client.ask([chat(i) for i in range(150)])
        account = client.account
    assert texts(replies) == expected(150)
    assert account.requests == 150
    assert account.failed == proxy.seen - 150 > 0


def test_what_was_paid_is_not_asked_again_and_the_account_is_exact(upstream, tmp_path):
    price = Price(input=2.0, output=10.0)
    given = settings(upstream.url, cache=tmp_path, price=price)
    for _ in range(2):
        with Client(given) as client:
            assert texts(client.ask([chat(i) for i in range(50)])) == expected(50)
            account = client.account
    read = sum(len(f"say {i}") for i in range(50))
    written = 3 * 50
    assert len(upstream.bodies) == 50
    assert account == Account(
        requests=50,
        hits=50,
        prompt_tokens=read,
        completion_tokens=written,
        money=pytest.approx((2.0 * read + 10.0 * written) / 1e6),
    )
    assert accounts(tmp_path) == {"http m": account}


def test_the_key_is_the_request_and_the_weights_not_the_server(upstream, tmp_path):
    body = {"messages": [{"role": "user", "content": "x"}]}
    with Upstream() as other:
        for url, weights, name in [
            (upstream.url, "theta_0", "a"),
            (other.url, "theta_0", "b"),
            (other.url, "theta_1", "b"),
        ]:
            with Client(settings(url, cache=tmp_path, concurrency=len(name))) as client:
                client.ask([call(ROUTE, body, weights, model=name)])
        assert (len(upstream.bodies), len(other.bodies)) == (1, 1)


def test_the_same_request_twice_at_once_is_sent_once(tmp_path):
    with Upstream(delay=0.1) as upstream, Client(settings(upstream.url)) as client:
        replies = client.ask([chat(1) for _ in range(8)])
        assert texts(replies) == [expected(2)[1]] * 8
        assert len(upstream.bodies) == 1


def test_the_large_answer_is_kept_whole(tmp_path):
    def large(body):
        return {**completion(body), "padding": "x" * 100_000}

    for _ in range(2):
        with Upstream(large) as upstream, Client(settings(upstream.url, cache=tmp_path)) as client:
            (reply,) = client.ask([chat(1)])
            assert len(reply.body["padding"]) == 100_000
    assert (tmp_path / "answers.sqlite").stat().st_size < 50_000


def test_a_refused_request_is_a_record_with_the_servers_words(upstream):
    def picky(body):
        is_bad = body["seed"] % 5 == 0
        words = '{"error": {"message": "the prompt is too long"}}'
        return Status(400, {}, words) if is_bad else completion(body)

    with Upstream(picky) as picked, Client(settings(picked.url)) as client:
        replies = client.ask([chat(i) for i in range(10)])
        assert replies[0] == replies[5] == Failed("HTTP 400: the prompt is too long", 400)
        assert sum(isinstance(reply, Replied) for reply in replies) == 8
        assert len(picked.bodies) == 10


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_stops_at_once(status):
    with (
        Upstream(lambda _: Status(status, {}, '{"error": "no such key"}')) as upstream,
        Client(settings(upstream.url)) as client,
        pytest.raises(BackEndError, match=rf"HTTP {status}: no such key"),
    ):
        client.ask([chat(i) for i in range(1000)])
    assert len(upstream.bodies) <= 32


def test_a_single_403_is_about_its_request():
    def moderated(body):
        return Status(403, {}, "flagged") if body["seed"] == 0 else completion(body)

    with Upstream(moderated) as upstream, Client(settings(upstream.url, concurrency=1)) as client:
        replies = client.ask([chat(i) for i in range(4)])
        assert replies[0] == Failed("HTTP 403: flagged", 403)
        assert texts(replies[1:]) == expected(4)[1:]


def test_no_server_for_longer_than_the_patience_is_one_sentence(upstream):
    upstream.die()
    begun = time.monotonic()
    with (
        Client(settings(upstream.url, patience=1.0)) as client,
        pytest.raises(BackEndError, match=r"no server answered for 1 s .*the same command again"),
    ):
        client.ask([chat(i) for i in range(10)])
    assert time.monotonic() - begun < 10


def test_a_server_that_comes_back_is_asked_again(upstream):
    upstream.die()
    timer = threading.Timer(1.0, upstream.come_back)
    timer.start()
    with Client(settings(upstream.url)) as client:
        assert texts(client.ask([chat(i) for i in range(20)])) == expected(20)
    timer.join()


def test_when_one_of_two_servers_dies_the_other_answers_all():
    with (
        Upstream(delay=0.02) as one,
        Upstream(delay=0.02) as two,
        Client(settings(one.url, two.url, concurrency=4)) as client,
    ):
        timer = threading.Timer(0.2, one.die)
        timer.start()
        assert texts(client.ask([chat(i) for i in range(300)])) == expected(300)
        timer.join()
        assert 0 < len(one.bodies) < 150 < len(two.bodies)


def test_two_servers_share_the_work():
    with Upstream(delay=0.02) as one, Upstream(delay=0.02) as two:
        with Client(settings(one.url, two.url, concurrency=4)) as client:
            client.ask([chat(i) for i in range(100)])
        assert abs(len(one.bodies) - len(two.bodies)) <= 10


def test_single_429s_at_random_do_not_shrink_the_limit():
    with Upstream(delay=0.02) as upstream:
        fault = sometimes(Status(429, {"Retry-After": "0.05"}), 0.05)
        with FaultyProxy(upstream.url, fault) as proxy:
            with Client(settings(proxy.url, concurrency=16)) as client:
                client.ask([chat(i) for i in range(600)])
                assert client.limits == {proxy.url: 16}
            assert proxy.busiest == 16


def test_a_server_that_takes_few_at_once_is_given_few():
    with Upstream(delay=0.01) as upstream, FaultyProxy(upstream.url) as proxy:
        proxy.faults = lambda _: Status(429) if proxy._here > 4 else None
        with Client(settings(proxy.url, concurrency=64, attempts=50)) as client:
            assert texts(client.ask([chat(i) for i in range(400)])) == expected(400)
            assert client.limits[proxy.url] < 32


def test_retry_after_is_kept(upstream):
    with (
        FaultyProxy(upstream.url, first(1, Status(503, {"Retry-After": "1"}))) as proxy,
        Client(settings(proxy.url)) as client,
    ):
        begun = time.monotonic()
        client.ask([chat(1)])
        assert 1.0 <= time.monotonic() - begun < 2.0


def test_the_budget_stops_before_the_next_request(tmp_path):
    price = Price(input=0.0, output=1e6 / 3)  # each answer has 3 tokens, so it costs 1
    with Upstream(delay=0.05) as upstream:
        given = settings(upstream.url, cache=tmp_path, concurrency=4, price=price, budget=10.0)
        with (
            Client(given) as client,
            pytest.raises(BackEndError, match=r"is spent, and its budget is 10; raise budget"),
        ):
            client.ask([chat(i) for i in range(100)])
        spent = accounts(tmp_path)["http m"]
        # Four were in flight at most when the tenth came in; all of them are kept.
        assert 10 <= spent.requests == len(upstream.bodies) <= 13
        assert spent.money == pytest.approx(spent.requests)
        richer = settings(upstream.url, cache=tmp_path, price=price, budget=1000.0)
        with Client(richer) as client:
            assert texts(client.ask([chat(i) for i in range(100)])) == expected(100)
        assert len(upstream.bodies) == 100


def test_it_works_where_a_loop_runs_already(upstream):
    async def cell():
        with Client(settings(upstream.url)) as client:
            return client.ask([chat(i) for i in range(3)])

    assert texts(asyncio.run(cell())) == expected(3)


def test_two_threads_share_a_client(upstream):
    found = {}
    with Client(settings(upstream.url)) as client:
        threads = [
            threading.Thread(target=lambda k=k: found.update({k: client.ask([chat(k)])}))
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [texts(found[k])[0] for k in range(4)] == expected(4)


PLAYER = """
import sys
from pathlib import Path
from eva.serving.client import Client, Settings, call
url, cache = sys.argv[1], Path(sys.argv[2])
def chat(i):
    body = {"messages": [{"role": "user", "content": f"say {i}"}], "seed": i}
    return call("/chat/completions", body, "theta")
with Client(Settings(urls=(url,), name="http m", cache=cache, concurrency=16)) as client:
    for start in range(0, 600, 200):
        client.ask([chat(i) for i in range(start, start + 200)])
"""


def player(url, cache):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PLAYER), url, str(cache)], stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_pays_nothing_twice_but_what_was_in_flight(tmp_path, how):
    with Upstream(delay=0.02) as upstream, FaultyProxy(upstream.url) as proxy:
        with player(proxy.url, tmp_path) as run:
            while len(proxy.paid) < 250:
                time.sleep(0.01)
            run.send_signal(how)
            begun = time.monotonic()
            run.communicate()
            assert run.returncode != 0
            assert time.monotonic() - begun < 5
        paid = len(proxy.paid)
        kept = accounts(tmp_path)["http m"].requests
        with player(proxy.url, tmp_path) as run:
            run.communicate()
            assert run.returncode == 0
        assert len(proxy.paid) == 600
        twice = sum(proxy.paid.values()) - 600
        # 16 in flight, and those of the last 40 ms (2 rounds of 16) for which no commit was made.
        assert twice <= 16 + (48 if how == signal.SIGKILL else 0)
        assert paid - kept <= twice  # a reply may have left the server after the kill
        assert accounts(tmp_path)["http m"].requests == 600


def test_two_processes_on_one_cache_are_safe(tmp_path):
    with Upstream(delay=0.005) as upstream:
        with player(upstream.url, tmp_path) as one, player(upstream.url, tmp_path) as two:
            assert one.communicate()[1] == two.communicate()[1] == b""
            assert one.returncode == two.returncode == 0
        found = accounts(tmp_path)["http m"]
    assert found.requests == len(upstream.bodies)
    assert found.requests + found.hits == 2 * 600


def test_a_new_cache_waits_for_another_process_that_opens_it_too(tmp_path):
    other = sqlite3.connect(tmp_path / "answers.sqlite", isolation_level=None)
    other.execute("begin immediate")  # as where the other one makes its tables
    opening = threading.Thread(target=lambda: Answers(tmp_path, "http m").close())
    opening.start()
    time.sleep(0.1)
    other.execute("rollback")
    other.close()
    opening.join()

    Answers(tmp_path, "http m").close()
    assert accounts(tmp_path) == {}


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, upstream):
    (tmp_path / "file").write_text("")
    with pytest.raises(BackEndError, match=r"paid answers in .* cannot be kept"):
        Client(settings(upstream.url, cache=tmp_path / "file"))


def test_a_damaged_cache_is_one_sentence(tmp_path, upstream):
    (tmp_path / "answers.sqlite").write_bytes(os.urandom(10_000))
    with pytest.raises(BackEndError, match="remove the folder to pay for them again"):
        Client(settings(upstream.url, cache=tmp_path))


def test_an_error_of_the_callers_own_iterator_comes_out(upstream):
    def calls():
        yield chat(1)
        raise LookupError("mine")

    with Client(settings(upstream.url)) as client:
        with pytest.raises(LookupError, match="mine"):
            client.ask(calls())
        assert texts(client.ask([chat(1)])) == [expected(2)[1]]


def test_threads_end_with_the_client(upstream, tmp_path: Path):
    client = Client(settings(upstream.url, cache=tmp_path))
    client.ask([chat(1)])
    client.close()
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "eva-http"]
