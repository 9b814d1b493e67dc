"""The game with real models: tiny random ones of families that people train; the playground."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from eva.records import Child, Rollout
from eva.store import read_records
from tests import tiny
from tests.world import contents

RECIPE = """
name: tiny
rounds: 2
n: 4
chunk: 3
sampling: {{temperature: 1.0, top_p: 0.9, max_tokens: 6}}
policy: {{kind: hf, model: model, device: cpu, threads: 1}}
prompts: {{kind: jsonl, path: prompts.jsonl, data: [likes]}}
reward: {{kind: rules, call: "tiny_reward_{family}:score"}}
creator: {{start: 0, evolve: {{kind: python, call: "tiny_reward_{family}:evolve"}}}}
learner: {{kind: dpo, beta: 0.1, lr: 1.0e-3, epochs: 2, batch: 4}}
"""

CODE = '''
from eva import Child, Message

def score(prompt, response):
    """The share of tokens that the prompt likes: a reward that needs the prompt's data."""
    words = response.text.split()
    return sum(w.endswith(prompt.data["likes"]) for w in words) / max(1, len(words))

def evolve(parents, policy, *, seed):
    return [
        Child(parent=p.prompt.id, messages=(*p.prompt.messages[:-1],
              Message(role="user", content=p.prompt.messages[-1].content + word)),
              data=p.prompt.data, method="add", change="+" + word, by="tiny_reward")
        for p in parents for word in (" w1", " w2", " w3")
    ]
'''


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_a_folder_with_a_model_plays_on_chat_prompts_with_a_python_reward(tmp_path, family):
    make = {"llama": tiny.tiny_llama, "qwen3": tiny.tiny_qwen3, "gemma2": tiny.tiny_gemma2}[family]
    make(tmp_path / "model")
    words = tiny_words(tmp_path / "model")
    rows = [
        {"prompt": [{"role": "user", "content": words[i]},
                    {"role": "assistant", "content": words[i + 1]},
                    {"role": "user", "content": words[i + 2]}], "likes": "1"}
        for i in range(8)
    ]  # fmt: skip
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / f"tiny_reward_{family}.py").write_text(CODE)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(family=family))
    played_by_command(tmp_path / "recipe.yaml", tmp_path / "run")

    lessons = read_records(tmp_path / "run/rounds/001/lessons.jsonl", Rollout)
    assert {len(r.responses) for r in lessons} == {4}
    assert all(r.tokens and r.logprobs for rollout in lessons for r in rollout.responses)
    assert any(r.prompt.born == 0 and r.prompt.parent for r in lessons)
    children = read_records(tmp_path / "run/rounds/000/children.jsonl", Child)
    assert {c.by for c in children} == {"tiny_reward"}
    loads_and_differs(tmp_path / "run/rounds/001/learn/checkpoint", tmp_path / "model")


def tiny_words(model: Path) -> list[str]:
    """Words that the tokenizer knows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    special = set(tokenizer.all_special_tokens)
    return [word for word in tokenizer.get_vocab() if word not in special][:12]


def loads_and_differs(checkpoint: Path, start: Path) -> None:
    """transformers loads the checkpoint, and its weights moved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    after = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    before = AutoModelForCausalLM.from_pretrained(start).state_dict()
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[key], before[key]) for key in after)
    assert AutoTokenizer.from_pretrained(checkpoint).chat_template


def played_by_command(recipe: Path, run: Path, *more: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eva", "run", str(recipe), str(run), *more],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


QUICK = [
    word
    for override in ("rounds=3", "prompts.n=32", "chunk=8", "learner.steps=4",
                     "evaluate.sets.hard.n=16", "evaluate.sets.x0.n=16")
    for word in ("--set", override)
]  # fmt: skip


def killed_at(recipe: Path, run: Path, landmark: str, *more: str) -> None:
    """Play until a file or folder stands, then kill -9."""
    process = subprocess.Popen(
        [sys.executable, "-m", "eva", "run", str(recipe), str(run), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (run / landmark).exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


LANDMARKS = {
    # Inside chunks, between stages, and while learning, at a snapshot and behind it.
    "playground-eva": [
        "rounds/000/solved/000001.jsonl",
        "rounds/000/lessons.jsonl",
        "rounds/001/scored.jsonl",
        "rounds/001/learn",
        "rounds/001/learn/snapshot-00000002",
        "rounds/002/born.jsonl",
        "evals/003.json",
    ],
    "playground-rloo": [
        "rounds/000/solved/000001.jsonl",
        "rounds/001/learn/snapshot-00000002",
        "rounds/001/solved/000003.jsonl",
        "rounds/001/learn/checkpoint",
        "rounds/002/children/000001.jsonl",
        "rounds/002/notes.jsonl",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LANDMARKS)
def test_a_playground_run_killed_again_and_again_ends_byte_for_byte(tmp_path, name):
    quick = [*QUICK, "--set", "learner.save_steps=2", "--set", "learner.batch=8"]
    played_by_command(Path(name), tmp_path / "whole", *quick)
    for landmark in LANDMARKS[name]:
        killed_at(Path(name), tmp_path / "run", landmark, *quick)
    played_by_command(Path(name), tmp_path / "run", *quick)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_checkpoint_that_is_no_model_is_one_sentence(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes.txt").write_text("hello")
    done = subprocess.run(
        [sys.executable, "-m", "eva", "run", "playground-eva", str(tmp_path / "run"),
         "--set", f"policy.model={tmp_path / 'model'}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert str(tmp_path / "model") in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_prompts_longer_than_the_context_are_refused_and_the_run_goes_on(tmp_path):
    rows = [{"prompt": "len 3"}, {"prompt": "has 1 " * 30}, {"prompt": "even"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    played_by_command(
        Path("playground-static"), tmp_path / "run", *QUICK[:2],
        "--set", f"prompts={{kind: jsonl, path: {tmp_path / 'prompts.jsonl'}}}",
        "--set", "evaluate=null", "--set", "learner.steps=2",
    )  # fmt: skip
    refused = (tmp_path / "run/refused.jsonl").read_text()
    assert "context" in refused
    assert "has 1 has 1" in refused
    assert len(read_records(tmp_path / "run/rounds/000/lessons.jsonl", Rollout)) == 2


def test_the_starter_of_eva_new_plays(tmp_path):
    subprocess.run([sys.executable, "-m", "eva", "new", str(tmp_path / "mine")], check=True)
    played_by_command(tmp_path / "mine/recipe.yaml", tmp_path / "mine/run", "--set", "rounds=2")
    assert read_records(tmp_path / "mine/run/rounds/001/lessons.jsonl", Rollout)
