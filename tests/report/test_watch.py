import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eva.errors import BackEndError, RunDirError
from eva.report import watch
from eva.report.page import page
from tests.report.elements import Elements
from tests.report.fake_runs import write_run
from tests.report.fake_study import findings, write_cell, write_findings, write_plan, write_study

CELL = "cells/eva--graded--64/lr=0.0005/seed4"


@pytest.fixture(autouse=True)
def without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the folder is a new one."""
    monkeypatch.setattr(watch, "SOON", 0.0)
    monkeypatch.setattr(watch, "REST", 0.0)


@contextmanager
def watched(*paths: Path) -> Iterator[int]:
    """The port of a server that watches."""
    with watch.server(paths, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(port: int, path: str = "/", method: str = "GET", **headers: str):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()
    finally:
        connection.close()


def words(text: str) -> str:
    return " ".join(" ".join(Elements(text).texts).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("watched") / "run", "eva", rounds=2, prompts=8)


def test_the_page_is_served_and_may_ask_its_own_server_alone(run):
    with watched(run) as port:
        status, headers, text = ask(port)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert "One run, round by round." in words(text)
    policy = next(
        a["content"] for tag, a in Elements(text).found if tag == "meta" and "http-equiv" in a
    )
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "connect-src" not in page([run]) and "If-None-Match" not in page([run])


def test_it_listens_on_the_loopback_address_alone(run):
    with watch.server([run], 0) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        port = server.server_port
        # 127.0.0.2 is this machine too, and another address: who listens on all would answer.
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(2)
            other.connect(("127.0.0.2", port))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "[::1]:80", ""])
def test_a_name_of_someone_else_is_refused(run, host):
    with watched(run) as port:
        status, _, text = ask(port, Host=host)
        assert status == 421 and "round by round" not in text
        assert ask(port, Host=f"localhost:{port}")[0] == 200
        assert ask(port, Host=f"127.0.0.1:{port + 1}")[0] == 421


def test_two_names_or_none_are_refused(run):
    with watched(run) as port:
        for hosts in ("", f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
                assert connection.recv(64).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "path",
    ["/recipe.yaml", "/rounds/", "/../run/recipe.yaml", "/%2e%2e/", "/report.html", "/cells/",
     "/rounds/000/pool.jsonl", "http://127.0.0.1/", "/\x00"],
)  # fmt: skip
def test_nothing_but_the_page_is_served(run, path):
    with watched(run) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as sent:
        line = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        sent.sendall(line.encode())
        assert sent.recv(64).split()[1] in (b"404", b"400")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_only_read(run, method):
    with watched(run) as port:
        assert ask(port, method=method)[0] == 501


def test_a_state_is_sent_once(run):
    with watched(run) as port:
        _, headers, _ = ask(port)
        status, again, text = ask(port, If_None_Match=headers["ETag"])
        assert (status, text) == (304, "") and again["ETag"] == headers["ETag"]
        assert ask(port, If_None_Match='"another"')[0] == 200


def test_the_page_is_drawn_anew_when_the_run_goes_on(tmp_path):
    whole = write_run(tmp_path / "whole", "eva", rounds=3, prompts=8)
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "rounds/002")
    with watched(path) as port:
        _, headers, text = ask(port)
        assert "2 of 3 rounds are finished" in words(text)
        shutil.copytree(whole / "rounds/002", path / "rounds/002")
        status, after, text = ask(port, If_None_Match=headers["ETag"])
        assert status == 200 and after["ETag"] != headers["ETag"]
        assert "Unfinished" not in words(text)


def test_a_change_that_the_page_does_not_show_is_no_new_state(tmp_path):
    path = write_run(tmp_path / "run", "static", rounds=1, prompts=4)
    with watched(path) as port:
        _, headers, _ = ask(port)
        os.utime(path / "recipe.yaml")
        assert ask(port, If_None_Match=headers["ETag"])[0] == 304


def test_a_run_that_has_just_begun_is_waited_for(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    with watched(path) as port:
        status, _, text = ask(port)
        assert status == 200 and f"nothing has begun in {path} yet" in words(text)
        (path / "logs").mkdir()
        (path / "run.json").write_text("{}")
        assert "nothing has begun" in words(ask(port)[2])
        whole = write_run(tmp_path / "whole", "eva", rounds=2, prompts=4)
        shutil.copy(whole / "recipe.yaml", path)
        said = words(ask(port)[2])
        assert "0 of 2 rounds are finished" in said and "No round is finished yet." in said


def test_what_cannot_be_drawn_leaves_the_last_state(tmp_path):
    path = write_run(tmp_path / "run", "static", rounds=1, prompts=4)
    good = (path / "rounds/000/pool.jsonl").read_bytes()
    with watched(path) as port:
        _, headers, text = ask(port)
        (path / "rounds/000/pool.jsonl").write_text("{}\n")
        assert ask(port, If_None_Match=headers["ETag"])[0] == 503
        assert ask(port)[2] == text
        (path / "rounds/000/pool.jsonl").write_bytes(good)
        assert ask(port, If_None_Match=headers["ETag"])[0] == 304


def test_a_study_halfway_shows_how_far_it_is_and_then_what_it_found(tmp_path):
    write_plan(tmp_path)
    with watched(tmp_path) as port:
        assert "No run has begun yet." in words(ask(port)[2])
        write_run(tmp_path / CELL, "eva", rounds=2, prompts=8)
        said = words(ask(port)[2])
        assert "0 of 78 runs are finished" in said
        assert "One run, round by round." in words(ask(port, f"/{CELL}/report.html")[2])
        write_findings(tmp_path, findings())
        assert "Where the arms ended" in words(ask(port)[2])


def test_pages_of_runs_that_were_kept_are_served_and_no_others(tmp_path):
    study = write_study(tmp_path / "study")
    pruned = write_cell(study / "cells/eva--graded--64/lr=0.0005/seed5", "eva", pruned=True)
    write_run(tmp_path / "outside/seed1", "eva", rounds=1, prompts=4)
    (study / "cells/eva--graded--64/lr=0.0005/seed9").symlink_to(study / "nowhere")
    with watched(study) as port:
        links = [a["href"] for _, a in Elements(ask(port)[2]).found if a.get("href")]
        pages = [link for link in links if link.endswith("report.html")]
        assert len(pages) == 3
        for link in pages:
            assert ask(port, f"/{link}")[0] == 200
        assert not (study / CELL / "report.html").exists()
        gone = f"/{pruned.relative_to(study)}/report.html"
        for path in (gone, f"/{CELL}/recipe.yaml", "/cells/../../outside/seed1/report.html",
                     f"/{CELL}/", "/findings.json"):  # fmt: skip
            assert ask(port, path)[0] == 404, path


def test_many_browsers_are_answered_side_by_side(run):
    with watched(run) as port:
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(port)[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200] * 8


def test_drawing_leaves_the_cores_to_what_is_watched(run, monkeypatch):
    monkeypatch.setattr(watch, "REST", 1e9)
    drawn: list[int] = []

    def draw() -> str:
        drawn.append(1)
        return json.dumps(len(drawn))

    seen = watch.Watched(draw, lambda: [run / "recipe.yaml"])
    assert seen.state().body == b"1"
    os.utime(run / "recipe.yaml")
    assert seen.state().body == b"1"


def test_folders_that_are_missing_or_foreign_are_refused(tmp_path):
    with pytest.raises(RunDirError, match="there is no folder"):
        watch.server([tmp_path / "missing"], 0)
    (tmp_path / "letters.txt").write_text("x")
    with pytest.raises(RunDirError, match=r"neither a run nor a study.*letters\.txt"):
        watch.server([tmp_path], 0)


def test_a_port_that_is_taken_is_one_sentence(run):
    with watch.server([run], 0) as server, pytest.raises(BackEndError, match="another --port"):
        watch.server([run], server.server_port)
