"""A whole run with a policy of kind vllm by the console script, killed on the way."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")

from eva.records import Rollout
from eva.store import read_records
from tests.vllm.engines import WITH_VLLM, engines, waited
from tests.world import contents

pytestmark = [*WITH_VLLM, pytest.mark.timeout(900)]

RECIPE = """
name: small
rounds: 2
n: 4
chunk: 4
sampling: {temperature: 1.0, top_p: 0.9, max_tokens: 8}
policy: {kind: vllm, model: MODEL, device: cpu, dtype: float32, threads: 1, eager: true, rows: 16,
         context: 40, options: {max_num_batched_tokens: 40}}
prompts: {kind: jsonl, path: prompts.jsonl, data: [likes]}
reward: {kind: rules, call: "rules_for_vllm:score"}
creator: {start: 0, evolve: {kind: python, call: "rules_for_vllm:evolve"}}
learner: {kind: dpo, beta: 0.1, lr: 1.0e-2, epochs: 2, batch: 4, lora: {rank: 4, alpha: 8}}
evaluate: {every: 2, samples: 2, sets: {held: {kind: jsonl, path: held.jsonl, data: [likes]}}}
"""
RULES = '''
from eva import Child, Message

def score(prompt, response):
    """The share of words that the prompt likes."""
    words = response.text.split()
    return sum(word.endswith(prompt.data["likes"]) for word in words) / max(1, len(words))

def evolve(parents, policy, *, seed):
    return [
        Child(parent=p.prompt.id, messages=(
              Message(role="user", content=p.prompt.messages[-1].content + word),),
              data=p.prompt.data, method="add", change="+" + word, by="rules")
        for p in parents for word in (" w1", " w2", " w3")
    ]
'''


@pytest.fixture
def here(tmp_path, model):
    rows = [json.dumps({"prompt": f"w{i} w{i + 1}", "likes": "1"}) for i in range(12)]
    # The last one has 60 words: with the policy's context of 40 it is refused before the run.
    long = json.dumps({"prompt": "w5 " * 60, "likes": "1"})
    (tmp_path / "prompts.jsonl").write_text("\n".join([*rows[:8], long]))
    (tmp_path / "held.jsonl").write_text("\n".join(rows[8:]))
    (tmp_path / "rules_for_vllm.py").write_text(RULES)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(model)))
    return tmp_path


def command(here: Path, run: str) -> list[str]:
    """The console script, which vLLM's spawned processes import again."""
    return [
        str(Path(sys.executable).parent / "eva"),
        "run",
        str(here / "recipe.yaml"),
        run,
        "--json",
    ]


def played(here: Path, run: str) -> list[dict]:
    done = subprocess.run(command(here, run), cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def killed_at(here: Path, run: str, landmark: str) -> None:
    process = subprocess.Popen(
        command(here, run), cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert waited((here / run / landmark).exists)
    left = engines(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert waited(lambda: not any(one.is_running() for one in left))


def test_a_run_that_is_killed_ends_with_the_same_bytes(here):
    metrics = played(here, "whole")
    killed_at(here, "run", "rounds/000/solved/000001.jsonl")
    killed_at(here, "run", "rounds/001/tried/000000.jsonl")
    assert played(here, "run") == metrics[-2:]
    assert contents(here / "run") == contents(here / "whole")

    lessons = read_records(here / "run/rounds/001/lessons.jsonl", Rollout)
    assert {len(rollout.responses) for rollout in lessons} == {4}
    assert all(response.tokens for rollout in lessons for response in rollout.responses)
    assert "the model's context of 40" in (here / "run/refused.jsonl").read_text()
    # What is sampled is what was learnt: an adapter, merged for vLLM.
    evals = [(here / f"run/evals/held/{t:03d}.jsonl").read_text() for t in (0, 2)]
    assert evals[0] != evals[1]
    assert metrics[-1]["held/greedy/reward"] != metrics[0]["held/greedy/reward"]
    assert (here / "run/rounds/001/learn/checkpoint/adapter_config.json").exists()
