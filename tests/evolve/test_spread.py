"""Evolving in several processes: the children of one, paid for once, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from eva.build.creators import evolver
from eva.contracts import checked_children
from eva.errors import BackEndError, RecipeError
from eva.evolve.spread import Spread
from eva.parts import evolvers as parts
from eva.serving.answers import accounts
from tests.evolve.world import no_policy, parents
from tests.serving.proxy import FaultyProxy, Stall, Status, Upstream, first, mixed
from tests.writer import rewritten, served

ALL = dict.fromkeys((*parts.IN_DEPTH, *parts.IN_BREADTH), 1.0)


def by(url, **fields):
    return {"kind": "http", "model": "writer", "urls": [url], "concurrency": 12, **fields}


def evol_instruct(url, processes, by_fields=None, **fields):
    return parts.EvolInstruct(
        kind="evol_instruct", by=by(url, **(by_fields or {})), processes=processes, **fields
    )


def self_instruct(url, processes, **fields):
    return parts.SelfInstruct(kind="self_instruct", by=by(url), processes=processes, **fields)


def slow(body):
    """One answer after the other, each in 20 ms."""
    time.sleep(0.02)
    return rewritten(body)


def written(part, cache, given=None, seed=1):
    evolve = evolver(part, Path.cwd(), cache)
    try:
        return evolve(parents(20) if given is None else given, no_policy, seed=seed)
    finally:
        evolve.release()


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        (evol_instruct, {"operators": ALL}),
        (evol_instruct, {"operators": ALL, "chained": False, "children": 2}),
        (self_instruct, {}),
    ],
)
def test_the_children_are_those_of_one_process(part, fields, tmp_path):
    with served() as (url, _):
        alone = written(part(url, 1, **fields), tmp_path / "alone")
        beside = written(part(url, 3, **fields), tmp_path / "beside")
    assert beside == alone
    checked_children(beside, [parent.prompt.id for parent in parents(20)])
    assert any(child.flaw for child in alone)
    assert not all(child.flaw for child in alone)


def test_fewer_parents_than_processes_and_none_at_all(tmp_path):
    with served() as (url, requests):
        part = evol_instruct(url, 4, children=2)
        evolve = evolver(part, Path.cwd(), tmp_path)
        assert evolve([], no_policy, seed=1) == []
        assert requests == []
        few = evolve(parents(2), no_policy, seed=1)  # by the same processes
        evolve.release()
        evolve.release()  # there is nothing left to release
        assert few == written(evol_instruct(url, 1, children=2), None, parents(2))


def test_all_share_one_account_and_what_one_has_paid_for_no_other_pays_for_again(tmp_path):
    with served() as (url, requests):
        first_time = written(evol_instruct(url, 3), tmp_path)
        paid = len(requests)
        assert written(evol_instruct(url, 2), tmp_path) == first_time
        assert written(evol_instruct(url, 1), tmp_path) == first_time
        assert len(requests) == paid == accounts(tmp_path)["http writer"].requests == 80
    assert accounts(tmp_path)["http writer"].hits == 160


def test_faults_change_no_child(tmp_path):
    faults = mixed([Status(429), Status(500), Stall(0.05)], 0.2)
    with served() as (url, _):
        undisturbed = written(evol_instruct(url, 1), None)
        with FaultyProxy(url.removesuffix("/v1"), faults=faults) as proxy:
            spoilt = written(evol_instruct(f"{proxy.url}/v1", 2), tmp_path)
    assert spoilt == undisturbed
    assert max(proxy.paid.values()) == 1


def test_what_one_process_cannot_go_on_from_ends_all(tmp_path):
    with (
        served() as (url, _),
        FaultyProxy(url.removesuffix("/v1"), faults=first(10**6, Status(401))) as proxy,
    ):
        evolve = evolver(evol_instruct(f"{proxy.url}/v1", 3), Path.cwd(), tmp_path)
        with pytest.raises(BackEndError, match=r"the server refuses every request .*HTTP 401"):
            evolve(parents(20), no_policy, seed=1)
        assert evolve._team == {}


def test_a_budget_is_that_of_all_together(tmp_path):
    price = {"input": 1e6, "output": 0.0}  # 100 for each request of this server
    fields = {"price": price, "budget": 2000.0, "concurrency": 3}
    with served(slow) as (url, requests):
        with pytest.raises(BackEndError, match="is spent, and its budget is 2000"):
            written(evol_instruct(url, 3, fields, chained=False), tmp_path)
        # 20 requests, those in flight, and those that the shared account did not yet know of.
        assert 20 <= len(requests) < 40
        assert accounts(tmp_path)["http writer"].requests == len(requests)  # none is thrown away


def test_a_process_that_dies_is_one_sentence_and_the_next_call_starts_anew(tmp_path):
    with served(slow) as (url, requests):
        evolve = evolver(evol_instruct(url, 2), Path.cwd(), tmp_path)
        evolve([], no_policy, seed=1)
        [one, _] = evolve._team.values()

        def kill_once_asked():
            while not requests:
                time.sleep(0.01)
            os.kill(one.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_once_asked)
        killer.start()
        with pytest.raises(BackEndError, match="a process that evolves was killed by SIGKILL"):
            evolve(parents(20), no_policy, seed=1)
        killer.join()
        evolve([], no_policy, seed=1)
        [_, other] = evolve._team.values()
        os.kill(other.pid, signal.SIGKILL)  # while nothing is asked
        other.join()
        with pytest.raises(BackEndError, match="a process that evolves was killed by SIGKILL"):
            evolve(parents(20), no_policy, seed=1)
        again = evolve(parents(20), no_policy, seed=1)
        evolve.release()
        assert again == written(evol_instruct(url, 1), None)


ASKS = """
    import sys
    from pathlib import Path
    from eva.build.creators import evolver
    from tests.evolve import test_spread as t
    evolve = evolver(t.evol_instruct(sys.argv[1], 3, children=40), Path.cwd(), Path(sys.argv[2]))
    evolve([], t.no_policy, seed=1)
    print(*[process.pid for process in evolve._team.values()], flush=True)
    try:
        evolve(t.parents(20), t.no_policy, seed=1)
    finally:
        evolve.release()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_asked_and_keep_what_was_paid(how, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(ASKS)]
    with (
        served(slow) as (url, requests),
        subprocess.Popen(
            [*command, url, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as asks,
    ):
        assert asks.stdout is not None and asks.stderr is not None
        team = [int(word) for word in asks.stdout.readline().split()]
        while len(requests) < 40:
            assert asks.poll() is None
            time.sleep(0.01)
        asks.send_signal(how)
        asks.wait(20)
        assert wait_for_end(team)
        errors = asks.stderr.read()
        kept = accounts(tmp_path)["http writer"].requests
        assert errors.count("Traceback") == (how == signal.SIGINT)  # of none of the three
        # A kill loses what came in the last moments: a commit is due every 40 ms.
        assert kept >= (len(requests) - 12 if how == signal.SIGINT else 12)


def wait_for_end(pids, seconds=10.0):
    """Whether none of the processes is alive, soon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(is_alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def is_alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return status != "Z"


def refusing(refuses):
    """The base address of a server that refuses some requests with HTTP 400."""

    def reply(body):
        said = rewritten(body)
        if refuses(body):
            return Status(400, {}, '{"error": {"message": "too long"}}')
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}

    return Upstream(reply)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_refuses_whatever_it_is_asked_stops_the_run(processes, tmp_path):
    with refusing(lambda body: True) as upstream:
        evolve = evolver(evol_instruct(upstream.url, processes), Path.cwd(), tmp_path)
        with pytest.raises(
            BackEndError, match=r"http writer refuses each of 8 requests .*too long"
        ):
            evolve(parents(2), no_policy, seed=1)
        evolve.release()


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "refuses",
    [
        lambda body: "topic 0 " in str(body) or "topic 1 " in str(body),  # all of one process
        lambda body: "topic" not in str(body),  # the last of each chain
    ],
)
def test_one_that_refuses_some_does_not(refuses, processes, tmp_path):
    with refusing(refuses) as upstream:
        evolve = evolver(evol_instruct(upstream.url, processes), Path.cwd(), tmp_path)
        children = evolve(parents(4), no_policy, seed=1)
        assert evolve(parents(4)[:0], no_policy, seed=1) == []
        evolve.release()
    refused = [child for child in children if "HTTP 400: too long" in (child.flaw or "")]
    assert 0 < len(refused) < len(children) == 16


def test_what_a_process_logs_is_logged_here(tmp_path, caplog):
    with served() as (url, _):
        pass  # it is gone
    with (
        caplog.at_level("WARNING", "eva.serving"),
        pytest.raises(BackEndError, match="no server answered for 6 s"),
    ):
        written(evol_instruct(url, 2, {"patience": 6.0}), tmp_path, parents(2))
    assert "waiting for 6 s" in caplog.text


def test_processes_have_the_environment_of_their_start(tmp_path, monkeypatch):
    with served() as (url, _):
        assert len(written(evol_instruct(url, 2), tmp_path, parents(2))) == 8
        monkeypatch.setenv("EVA_TEST_KEY", "of-a-test")  # the fork server is there already
        part = evol_instruct(url, 2, {"key": "EVA_TEST_KEY"})
        assert len(written(part, None, parents(2))) == 8


def test_a_program_that_never_releases_them_ends_all_the_same(tmp_path):
    code = textwrap.dedent(ASKS).split("try:")[0]
    with served() as (url, _):
        command = [sys.executable, "-c", code, url, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert wait_for_end([int(word) for word in done.stdout.split()])


def test_a_wrong_template_is_told_before_anything_starts(tmp_path):
    (tmp_path / "deepen.md").write_text("Nothing is asked here.")
    part = evol_instruct("http://127.0.0.1:9/v1", 2, templates=str(tmp_path))
    with pytest.raises(RecipeError, match=r"has no \{prompt\}"):
        evolver(part, Path.cwd(), None)


def test_one_process_is_this_one():
    assert not isinstance(evolver(evol_instruct("http://a/v1", 1), Path.cwd(), None), Spread)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"by": {"kind": "self"}}, "processes is 2: only a model of kind http with urls"),
        (
            {"by": {"kind": "http", "model": "m", "serve": {"command": ["x"]}}},
            "processes is 2: only a model of kind http with urls",
        ),
        ({"turns": "follow_up"}, "not for follow_up"),
        ({"by": by("http://a/v1", concurrency=1)}, "but by.concurrency is 1"),
        ({"processes": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_spread_is_refused(fields, words):
    given = {"kind": "evol_instruct", "by": by("http://a/v1"), "processes": 2, **fields}
    with pytest.raises(ValidationError) as refused:
        parts.EvolInstruct.model_validate(given)
    assert words in json.dumps(str(refused.value))
