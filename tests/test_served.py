"""The game over HTTP: policy, writer and judge are real models on real servers that misbehave."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

pytest.importorskip("aiohttp")
pytest.importorskip("transformers")

from eva.records import Child, Rollout
from tests.serving.proxy import Cut, FaultyProxy, Garbage, Refuse, Stall, Status, mixed
from tests.test_models import killed_at, loads_and_differs, played_by_command
from tests.tiny import WORDS, bigram_llama, tiny_llama
from tests.world import contents, stage

IN_FLIGHT = 4
"""Requests to each server at once: what a kill of eva may pay a second time."""
FAULTS = (Status(429, {"Retry-After": "0"}), Status(500), Refuse())
"""They come before a request is paid."""
LATE_FAULTS = (*FAULTS, Cut(), Garbage(), Stall(3.0))
"""Among them some by which the reply is lost on the way."""


class Server:
    """`eva serve` in a process of its own; `restart` brings it back at the same port."""

    def __init__(self, model: Path) -> None:
        self._model, self._port = model, 0
        self.restart()

    def restart(self) -> None:
        words = ["serve", str(self._model), "--port", str(self._port), "--device", "cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eva", *words, "--threads", "1"], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().split()[-1]
        self._port = int(self.url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy, a model that writes prompts, and one that gives verdicts."""
    folder = tmp_path_factory.mktemp("models")
    tiny_llama(folder / "policy")
    config = json.loads((folder / "policy/config.json").read_text())
    config["max_position_embeddings"] = 4096
    (folder / "policy/config.json").write_text(json.dumps(config))
    words = list(WORDS)
    bigram_llama(
        folder / "writer",
        {
            "<assistant>": [*["<new_prompt>"] * 4, "w3"],  # one in five forgets the marker
            "<new_prompt>": words,
            **{word: [*words, *["</new_prompt>"] * 8] for word in words},
            "</new_prompt>": ["<eos>"],
        },
    )
    verdicts = [str(number) for number in range(1, 12)]  # 11 is none on a scale to 10
    bigram_llama(
        folder / "judge",
        {"<assistant>": ["Verdict:"], "Verdict:": verdicts, **{v: ["<eos>"] for v in verdicts}},
    )
    return folder


@pytest.fixture(scope="module")
def servers(models: Path) -> Iterator[dict[str, Server]]:
    names = {"policy": "policy", "second": "policy", "writer": "writer", "judge": "judge"}
    with ExitStack() as stack:
        started = {}
        for key, model in names.items():
            started[key] = Server(models / model)
            stack.callback(started[key].kill)
        yield started


def written(folder: Path, models: Path, urls: dict[str, str]) -> Path:
    """The recipe of a game whose models stand at these addresses."""
    folder.mkdir()
    rows = [{"prompt": f"w{i} w{i + 1}"} for i in range(8)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def asked(name: str, *keys: str) -> dict[str, object]:
        how = {"concurrency": IN_FLIGHT, "deadline": 2.0, "attempts": 30, "patience": 60.0}
        return {
            "kind": "http",
            "model": str(models / name),
            "urls": [urls[key] for key in keys or (name,)],
            **how,
        }

    drawn = {"temperature": 1.0, "top_p": 1.0}
    recipe = {
        "name": "served",
        "rounds": 2,
        "n": 3,
        "chunk": 4,
        "sampling": {**drawn, "max_tokens": 6},
        "policy": asked("policy", "policy", "second")
        | {"reload": "eva", "device": "cpu", "threads": 1},
        "prompts": {"kind": "jsonl", "path": "prompts.jsonl"},
        "reward": {"kind": "judge", "by": asked("judge"), "sampling": {**drawn, "max_tokens": 4}},
        "creator": {
            "start": 0,
            "select": {"keep": 0.5},
            "evolve": {
                "kind": "evol_instruct",
                "by": asked("writer"),
                "children": 3,
                "sampling": {**drawn, "max_tokens": 40},
            },
        },
        "learner": {"kind": "dpo", "beta": 0.1, "lr": 1e-2, "epochs": 1, "batch": 4},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def comes(path: Path) -> None:
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.005)


@pytest.mark.slow
def test_a_game_over_http_with_faults_and_kills_ends_as_an_undisturbed_one(
    models: Path, servers: dict[str, Server], tmp_path: Path
) -> None:
    plain = {key: server.url for key, server in servers.items()}
    quiet = tmp_path / "quiet/run"
    played_by_command(written(tmp_path / "quiet", models, plain), quiet)

    with ExitStack() as stack:
        proxies = {
            key: stack.enter_context(
                FaultyProxy(
                    url.removesuffix("/v1"),
                    mixed(FAULTS if key == "writer" else LATE_FAULTS, 0.2, seed),
                )
            )
            for seed, (key, url) in enumerate(plain.items())
        }
        recipe = written(
            tmp_path / "loud", models, {key: f"{proxy.url}/v1" for key, proxy in proxies.items()}
        )
        run = tmp_path / "loud/run"

        def murder() -> None:
            """A server dies in the middle of the first round, another comes back in the second."""
            comes(run / "rounds/000/tried/000000.jsonl")
            # One that comes back has forgotten its weights; its closed port is how eva knows.
            servers["second"].kill()
            proxies["second"].die()
            comes(run / "rounds/000/children.jsonl")
            servers["judge"].kill()
            time.sleep(0.5)
            servers["judge"].restart()
            comes(run / "rounds/001/pool.jsonl")
            servers["second"].restart()
            proxies["second"].come_back()

        killer = threading.Thread(target=murder)
        killer.start()
        for landmark in ("written/000000.jsonl", "solved/000000.jsonl", "lessons.jsonl"):
            killed_at(recipe, run, f"rounds/000/{landmark}")
        played_by_command(recipe, run)
        killer.join()
        paid = proxies["writer"].paid
        assert sum(paid.values()) - len(paid) <= 3 * IN_FLIGHT  # three kills
        before = sum(proxy.seen for proxy in proxies.values())
        played_by_command(recipe, run)  # it is finished: nothing is asked again
        assert sum(proxy.seen for proxy in proxies.values()) == before

    assert contents(run).keys() == contents(quiet).keys()
    for name, content in contents(quiet).items():
        if name not in ("recipe.yaml", "run.json"):  # they hold the addresses
            assert contents(run)[name] == content, name
    the_game_was_real(run, models)


def the_game_was_real(run: Path, models: Path) -> None:
    """Children were written, some refused, verdicts missing, and the weights moved."""
    children = [child for t in (0, 1) for child in stage(run, t, "children", Child)]
    assert {child.gate for child in children} >= {None, "parse"}
    assert all(child.raw for child in children)
    assert {child.by for child in children} == {f"http {models / 'writer'}"}
    lessons = stage(run, 1, "lessons", Rollout)
    rewards = [reward for lesson in lessons for reward in lesson.rewards]
    assert None in rewards  # a verdict of 11 is missing, not 0
    assert {r for r in rewards if r is not None} <= {float(v) for v in range(1, 11)}
    assert all(r.tokens for lesson in lessons for r in lesson.responses)
    assert {lesson.policy for lesson in lessons} != {
        lesson.policy for lesson in stage(run, 0, "lessons", Rollout)
    }
    loads_and_differs(run / "rounds/001/learn/checkpoint", models / "policy")


@pytest.mark.slow
def test_eva_starts_the_servers_of_each_round_itself_and_ends_them(
    models: Path, servers: dict[str, Server], tmp_path: Path
) -> None:
    plain = {key: server.url for key, server in servers.items()}
    path = written(tmp_path / "own", models, plain)
    recipe = yaml.safe_load(path.read_text())
    words = [sys.executable, "-m", "eva", "serve", "{model}", "--port", "{port}", "--threads", "1"]
    recipe["policy"] |= {"urls": [], "reload": "none", "serve": {"command": words, "count": 2}}
    path.write_text(yaml.safe_dump(recipe))
    run = tmp_path / "own/run"
    played_by_command(path, run)
    played_by_command(written(tmp_path / "quiet", models, plain), tmp_path / "quiet/run")
    for name in ("rounds/001/lessons.jsonl", "rounds/001/children.jsonl"):
        assert (run / name).read_bytes() == (tmp_path / "quiet/run" / name).read_bytes()
    assert not left_over("eva serve", str(run))


def left_over(*words: str) -> list[str]:
    """Commands of living processes that hold all these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if all(word in command for word in words):
                found.append(command)
    return found
