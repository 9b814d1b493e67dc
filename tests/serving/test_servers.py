"""Servers that eva starts: real processes, which die, take their time, or lose their port."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from aiohttp import web

from eva.errors import BackEndError, RecipeError
from eva.parts.policies import Serve
from eva.serving import servers
from eva.serving.client import Client, Settings, call
from tests.serving.proxy import Threaded
from tests.serving.test_client import chat
from tests.trainers.test_processes import lives, waited

SMALL = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def _say(self, body, status=200):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()
    def do_GET(self):
        self._say({"pid": os.getpid(), "argv": sys.argv, "gpu": os.environ.get("GPU")})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("seed") == int(os.environ.get("DIE_AT", -1)) and not os.path.exists("died"):
            open("died", "w").close()
            os._exit(3)
        self._say({"pid": os.getpid(), "usage": {}})
    def log_message(self, *args): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def serve(tmp_path, text=SMALL, *, words=("{port}", "{model}", "{index}"), **given):
    path = tmp_path / "small.py"
    path.write_text(text)
    return Serve(command=(sys.executable, str(path), *words), **{"ready": 20.0, **given})


def got(url):
    with urllib.request.urlopen(url) as reply:
        return json.loads(reply.read())


def test_servers_get_their_model_port_index_and_environment_and_end(tmp_path):
    config = serve(tmp_path, count=2, env={"GPU": "{index}"})
    with servers.started(config, "/the/model", tmp_path / "logs") as started:
        said = [got(url) for url in started.urls]
        ports = [url.split(":")[2].split("/")[0] for url in started.urls]
        assert [one["argv"][1:] for one in said] == [
            [ports[0], "/the/model", "0"],
            [ports[1], "/the/model", "1"],
        ]
        assert [one["gpu"] for one in said] == ["0", "1"]
    assert not any(lives(one["pid"]) for one in said)
    assert (tmp_path / "logs" / "server_1.log").read_text().startswith("$ ")


def test_a_server_that_dies_is_named_with_its_last_words(tmp_path):
    text = "import sys; print('no such model', sys.argv[2]); sys.exit(7)"
    with (
        pytest.raises(BackEndError, match=r"server 0 ended with exit code 7") as caught,
        servers.started(serve(tmp_path, text), "/m", tmp_path / "logs"),
    ):
        pass
    assert str(caught.value).endswith("no such model /m")


def test_a_server_that_is_not_ready_in_time_is_named_and_ended(tmp_path):
    text = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    with (
        pytest.raises(BackEndError, match="did not answer within 1 s") as caught,
        servers.started(serve(tmp_path, text, ready=1.0), "/m", tmp_path / "logs"),
    ):
        pass
    assert not lives(int(str(caught.value).split("\n")[-1]))


def test_a_program_that_is_not_there_is_a_wrong_recipe(tmp_path):
    config = Serve(command=("no-such-server", "{port}"))
    with (
        pytest.raises(RecipeError, match="no program 'no-such-server'"),
        servers.started(config, "/m", tmp_path),
    ):
        pass


def test_a_port_that_was_taken_in_between_is_changed_for_another(tmp_path, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]  # bound, not listening: nobody answers there
        free = servers.free_port
        ports = iter([taken])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports, None) or free())
        with servers.started(serve(tmp_path), "/m", tmp_path / "logs") as started:
            assert str(taken) not in started.urls[0]
            assert got(started.urls[0])["argv"][2] == "/m"


def test_an_answer_of_another_program_on_the_port_is_not_believed(tmp_path, monkeypatch):
    async def late(request):
        await asyncio.sleep(1.0)  # until then the program has ended
        return web.json_response({})

    with Threaded(late) as foreign:
        monkeypatch.setattr(servers, "free_port", lambda: foreign.port)
        with (
            pytest.raises(BackEndError, match="server 0 ended with exit code 3"),
            servers.started(serve(tmp_path, "raise SystemExit(3)"), "/m", tmp_path / "logs"),
        ):
            pytest.fail("it is not ready")


WRAPPER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1], *sys.argv[2:]])
child.wait()
"""


def test_what_a_dead_server_started_ends_before_it_is_started_again(tmp_path):
    (tmp_path / "engine.py").write_text(SMALL)
    words = (str(tmp_path / "engine.py"), "{port}", "{model}")
    config = serve(tmp_path, WRAPPER, words=words)
    with servers.started(config, "/m", tmp_path / "logs") as started:
        (url,) = started.urls
        engine = got(url)["pid"]
        wrapper = int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(wrapper, signal.SIGKILL)
        assert waited(lambda: not lives(wrapper))
        started.revive(url)
        assert not lives(engine)
        second = got(url)["pid"]
        assert second != engine
    assert not lives(second)


def asking(started, **given):
    settings = Settings(urls=started.urls, name="m", cache=None, concurrency=2, **given)
    return Client(settings, revive=started.revive)


def test_a_server_that_dies_in_the_middle_is_started_again_and_its_requests_are_answered(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = serve(tmp_path, env={"DIE_AT": "5"})
    with servers.started(config, "/m", tmp_path / "logs") as started, asking(started) as client:
        replies = client.ask([chat(i) for i in range(12)])
        pids = [reply.body["pid"] for reply in replies]
    assert len(set(pids)) == 2
    assert pids[0] != pids[-1]
    assert (tmp_path / "died").exists()


def test_a_server_that_dies_again_and_again_is_given_up(tmp_path):
    text = SMALL.replace("        body = ", "        os._exit(3)\n        body = ")
    with (
        servers.started(serve(tmp_path, text), "/m", tmp_path / "logs") as started,
        asking(started) as client,
        pytest.raises(BackEndError, match="ended with exit code 3, for the 4th time"),
    ):
        client.ask([call("/x", {"seed": i}, "w") for i in range(4)])


EVA = """
import sys, time
from pathlib import Path
from eva.parts.policies import Serve
from eva.serving import servers
config = Serve(command=(sys.executable, sys.argv[1], "{port}", "{model}"), count=2)
with servers.started(config, "/m", Path(sys.argv[2])) as started:
    print(*started.urls, flush=True)
    time.sleep(300)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_servers_end_with_eva(tmp_path, how):
    serve(tmp_path)
    words = [sys.executable, "-c", EVA, str(tmp_path / "small.py"), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as eva:
        urls = eva.stdout.readline().decode().split()
        pids = [got(url)["pid"] for url in urls]
        assert all(map(lives, pids))
        eva.send_signal(how)
    assert waited(lambda: not any(map(lives, pids)))


def test_only_what_was_started_is_ended(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        with servers.started(serve(tmp_path), "/m", tmp_path / "logs"):
            pass
        time.sleep(0.1)
        assert other.poll() is None
        os.kill(other.pid, signal.SIGKILL)
