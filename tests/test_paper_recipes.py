"""The shipped recipes for big models, each played with a tiny one of the same architecture."""

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from eva.recipe import load, shipped
from eva.records import Child, Rollout
from eva.start import run_recipe
from eva.store import read_records
from tests import tiny, writer
from tests.learn.runs import assert_shards
from tests.rewards import models as reward_models

BIG = [name for name in shipped() if name.startswith(("gemma2-", "qwen3-"))]
ONLINE = ("rloo", "online-dpo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models in place of the big ones, and prompts in their words."""
    made = tmp_path_factory.mktemp("models")
    tiny.tiny_gemma2(made / "gemma2")
    tiny.tiny_qwen3(made / "qwen3")
    for name in ("gemma2", "qwen3"):
        config = json.loads((made / name / "config.json").read_text())
        config["max_position_embeddings"] = 4096  # requests to write a prompt are long
        (made / name / "config.json").write_text(json.dumps(config))
    reward_models.armo(made / "armo")
    reward_models.llama_classifier(made / "classifier")
    for name, first in (("prompts", 0), ("new", 16)):
        rows = [{"prompt": f"w{i} w{i + 1} w{(i * 7) % 32}"} for i in range(first, first + 8)]
        (made / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return made


def small(name: str, folder: Path, url: str) -> list[str]:
    """What makes a recipe for a node of GPUs one for a moment on a CPU."""
    recipe = load(name)
    family = "qwen3" if name.startswith("qwen3") else "gemma2"
    is_online = recipe.learner.kind in ("rloo", "online_dpo")
    over = [
        "rounds=2",
        "sampling.max_tokens=5",
        f"policy={{kind: hf, model: {folder / family}, device: cpu, threads: 1}}",
        f"prompts={{kind: jsonl, path: {folder / 'prompts.jsonl'}}}",
        f"reward.model={folder / ('armo' if recipe.reward.head == 'armo' else 'classifier')}",
        "reward.device=cpu",
        "learner.lr=1.0e-3",
        "learner.batch=4",
        "learner.save_steps=null",
        "learner.steps=3" if is_online else "learner.launch=[]",
    ]
    if recipe.new_prompts is not None:
        over.append(f"new_prompts={{kind: jsonl, path: {folder / 'new.jsonl'}}}")
    if recipe.creator is not None and recipe.creator.evolve.by.kind == "http":
        over.append(f"creator.evolve.by.urls=[{url}]")
    return over


@pytest.mark.parametrize("name", BIG)
def test_a_recipe_for_a_big_model_plays_with_a_tiny_one(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-a-test")
    refuses = iter([False, True])  # the second child, whatever the policy's answers lead to

    def write(body: dict) -> str:
        return writer.REFUSAL if next(refuses, False) else writer.sound(body)

    with writer.served(write) as (url, requests):
        recipe = load(name, small(name, folder, url))
        list(run_recipe(recipe, tmp_path / "run", here=tmp_path))
    last = tmp_path / "run/rounds/001"
    assert (last / "learn/log.jsonl").read_bytes().count(b"\n") >= 2
    lessons = read_records(last / "lessons.jsonl", Rollout)
    assert all(reward is not None for lesson in lessons for reward in lesson.rewards)
    if recipe.creator is None:
        assert not requests
        return
    children = [c for path in last.rglob("children*") for c in found_in(path)]
    assert {len(c.raw or "") > 0 for c in children} == {True}
    if recipe.creator.evolve.by.kind == "http":
        # 2 of 8 prompts become parents, and each has four children, one after another.
        assert len(requests) == len(children) == 8
        assert {c.by for c in children} == {"http gpt-4-0125-preview"}
        assert any(lesson.prompt.parent for lesson in lessons)
        assert any(c.flaw for c in children) and any(c.flaw is None for c in children)
    else:
        assert {c.by.split()[0] for c in children} == {"self"}


def found_in(path: Path) -> list[Child]:
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    return [child for file in files for child in read_records(file, Child)]


def test_every_solver_of_the_paper_has_a_recipe_and_its_baselines() -> None:
    for solver in ("dpo", "sppo", "simpo", "orpo", *ONLINE):
        assert f"gemma2-9b-{solver}-eva" in BIG
        assert f"gemma2-9b-{solver}-static" in BIG
        learner = load(f"gemma2-9b-{solver}-eva").learner
        assert learner.kind == solver.replace("-", "_")
        for name in BIG:
            if name.startswith(f"gemma2-9b-{solver}-"):
                assert load(name).learner == learner, name


def test_the_launch_of_the_node_s_recipe_is_one_that_accelerate_takes() -> None:
    words = load("gemma2-9b-dpo-eva").learner.launch
    assert words[:2] == ("accelerate", "launch")
    assert assert_shards(*words[2:]).num_processes == 8
