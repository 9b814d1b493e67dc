"""Claims about the online game that must hold in code; all in the world of numbers."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from eva import build, online, seeds, toy
from eva.errors import RecipeError
from eva.game import Creator
from eva.recipe import load
from eva.records import Checkpoint, Child, Prompt, Rollout, ScoredPrompt
from eva.start import quiet
from eva.store import Room, read_records
from tests.world import online_recipe, played_online, said, stage

STEPS, BATCH = 4, 4


def solved(path: Path, t: int, k: int) -> list[Rollout]:
    return stage(path, t, f"solved/{k:06d}", Rollout)


@pytest.fixture(scope="module")
def game(tmp_path_factory):
    path = tmp_path_factory.mktemp("online") / "run"
    return path, played_online(path)


# ---------------------------------------------------------------- a round


def test_a_round_leaves_every_stage_under_its_own_name(game):
    path, _ = game
    names = {entry.name.removesuffix(".jsonl") for entry in (path / "rounds/001").iterdir()}
    assert names == {
        "pool", "solved", "scored", "parents", "children", "born", "lessons", "notes", "learn",
        "checkpoint", "metrics.json",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["scored", "parents", "children"])
def test_the_whole_stages_are_their_parts_in_order(game, name):
    path, _ = game
    kind = {"scored": ScoredPrompt, "parents": ScoredPrompt, "children": Child}[name]
    assert stage(path, 1, name, kind) == Room(path / "rounds/001", quiet).parts(name, kind)


def test_the_lessons_of_a_round_are_all_its_mini_batches_in_order(game):
    path, _ = game
    lessons = stage(path, 1, "lessons", Rollout)
    assert lessons == [r for k in range(STEPS) for r in solved(path, 1, k)]
    assert len(lessons) == STEPS * BATCH


def test_every_rollout_says_which_policy_and_which_mini_batch_answered(game):
    path, _ = game
    theta_1 = json.loads((path / "rounds/000/checkpoint.jsonl").read_text())["id"]
    for k in range(STEPS):
        assert {r.policy for r in solved(path, 1, k)} == {f"{theta_1}+{k}"}
        assert {r.round for r in solved(path, 1, k)} == {1}


def test_a_mini_batch_is_answered_by_the_weights_after_the_last_one(game):
    path, _ = game
    skill = 0.0
    for k in range(STEPS):
        mini_batch = solved(path, 0, k)
        with toy.open_policy(online_checkpoint(skill)) as policy:
            seed = build.game(online_recipe(), path).seed
            expected = policy(
                [r.prompt for r in mini_batch],
                4,
                sampling=online_recipe().sampling,
                seed=seeds.child(seed, "answer", 0, k),
            )
        assert [list(r.responses) for r in mini_batch] == expected
        skill += 0.25 * toy.mean_margin(mini_batch)
    assert json.loads((path / "rounds/000/learn/checkpoint/skill.json").read_text()) == {
        "skill": skill
    }


def online_checkpoint(skill: float):
    return Checkpoint(uri=f"toy:{skill}", id="x")


def test_a_run_warms_up_mixes_up_and_bootstraps(game):
    path, _ = game
    evolved = [
        sum(r.prompt.method != "given" for r in solved(path, t, k))
        for t in range(2)
        for k in range(STEPS)
    ]
    # 8 mini-batches of 4: 1 of warm-up; 2 of mix-up with shares 0.4 and 0.8; then 0.8 of 4 is 3.
    assert evolved == [0, 2, 3, 3, 3, 3, 3, 3]


def test_an_asleep_creator_writes_no_children(tmp_path):
    path = tmp_path / "run"
    played_online(path, "creator.warmup=0.5", "creator.mixup=0.5")
    assert not (path / "rounds/000/children/000002.jsonl").exists()
    assert stage(path, 0, "children/000003", Child)  # for mini-batch 4, the first of the mix-up
    assert len(stage(path, 0, "scored", ScoredPrompt)) == STEPS * BATCH  # it only listens


def test_nothing_is_evolved_after_the_last_mini_batch_of_a_run(game):
    path, _ = game
    assert (path / "rounds/001/children/000002.jsonl").exists()
    assert not (path / "rounds/001/children/000003.jsonl").exists()


def test_children_are_born_in_their_round_and_trained_on_in_the_next_mini_batch(game):
    path, _ = game
    born = stage(path, 1, "born", Prompt)
    assert {p.born for p in born} == {1}
    assert born == [c.grown(1) for c in stage(path, 1, "children", Child) if c.flaw is None]
    newest = {c.id for c in stage(path, 1, "children/000001", Child)}
    trained = [r.prompt.id for r in solved(path, 1, 2)]
    assert len(newest & set(trained)) == 3


def test_a_child_written_at_the_end_of_a_round_is_trained_on_in_the_next(game):
    path, _ = game
    last = {c.id for c in stage(path, 0, "children/000003", Child)}
    first = [r.prompt for r in solved(path, 1, 0)]
    assert {p.id for p in first if p.method == "step"} <= last
    assert {p.born for p in first if p.method == "step"} == {0}


def test_scores_are_best_minus_mean_of_the_mini_batch_itself(game):
    path, _ = game
    for one, tried in zip(
        stage(path, 0, "scored", ScoredPrompt), stage(path, 0, "lessons", Rollout), strict=True
    ):
        rewards = [r for r in tried.rewards if r is not None]
        assert one.prompt == tried.prompt
        assert one.info == pytest.approx(max(rewards) - sum(rewards) / len(rewards))
        assert one.policy == tried.policy


def test_staleness_is_measured(game):
    path, rounds = game
    for t in range(2):
        metrics = rounds[t][1]
        assert metrics["evolved"] == sum(
            r.prompt.method == "step" for r in stage(path, t, "lessons", Rollout)
        ) / (STEPS * BATCH)
        ages = []
        for k in range(STEPS):
            file = path / f"rounds/{t:03d}/parents/{k:06d}.jsonl"
            for parent in read_records(file, ScoredPrompt) if file.exists() else ():
                ages.append(t * STEPS + k - scored_at(path, parent))
        assert metrics["age"] == pytest.approx(sum(ages) / len(ages))
    assert rounds[0][1]["wait"] >= 0
    assert rounds[1][1]["buffer"] <= 32
    assert rounds[1][1]["waiting"] <= BATCH


def scored_at(path: Path, parent: ScoredPrompt) -> int:
    """The mini-batch of the run whose rollouts gave the score of a parent."""
    return parent.round * STEPS + int(parent.policy.rpartition("+")[2])


def test_metrics_of_the_learner_are_means_over_the_round(game):
    path, rounds = game
    margins = [toy.mean_margin(solved(path, 1, k)) for k in range(STEPS)]
    assert rounds[1][1]["learn/margin"] == pytest.approx(sum(margins) / STEPS)
    assert rounds[1][1]["spread"] == pytest.approx(sum(margins) / STEPS)


def test_a_metric_of_the_learner_that_is_missing_somewhere_is_left_out_there():
    tally = online.tallied({}, {"loss": 1.0, "accuracy": float("nan")})
    tally = online.tallied(tally, {"loss": 2.0, "accuracy": 0.5})
    assert (tally["loss"].total, tally["loss"].count) == (3.0, 2)
    assert (tally["accuracy"].total, tally["accuracy"].count) == (0.5, 1)


def test_evolved_prompts_get_harder_and_the_policy_goes_further_than_on_static_ones(tmp_path):
    gains = []
    for seed in (1, 2, 3):
        more = [f"seed={seed}", "rounds=4", "learner.steps=8", "learner.batch=8", "prompts.n=32"]
        ends = [
            played_online(tmp_path / f"{name}{seed}", *more, *arm)[-1][1]["hard/sampled/reward"]
            for name, arm in (("eva", []), ("static", ["creator=null"]))
        ]
        gains.append(ends[0] - ends[1])
    assert min(gains) > 0.2


def test_every_metric_of_an_online_round_stands_on_its_page(game):
    page = (Path(__file__).parent.parent / "docs/metrics.md").read_text("utf-8")
    documented = set(re.findall(r"`([\w/]+)`", page))
    for _, metrics in game[1]:
        held_out = {key for key in metrics if key.count("/") == 2}
        assert metrics.keys() - held_out <= documented


# ---------------------------------------------------------------- other arms


def test_without_a_creator_each_given_prompt_is_visited_equally_often(tmp_path):
    path = tmp_path / "run"
    rounds = played_online(path, "creator=null", "learner.batch=3")
    visits = Counter(r.prompt.id for t in range(2) for r in stage(path, t, "lessons", Rollout))
    assert len(visits) == 8
    assert set(visits.values()) == {3}  # 2 rounds of 4 mini-batches of 3, over 8 prompts
    assert not (path / "rounds/001/scored.jsonl").exists()
    assert "evolved" not in rounds[1][1]
    assert stage(path, 0, "pool", Prompt) == stage(path, 2, "pool", Prompt)


def test_new_prompts_take_turns_round_by_round(tmp_path):
    path = tmp_path / "run"
    arm = ("creator=null", "new_prompts={kind: toy, n: 8, seed: 5}")
    played_online(path, *arm)
    new = toy.prompts(online_recipe(*arm).new_prompts, 1)
    assert stage(path, 1, "pool", Prompt) == new
    visits = Counter(r.prompt.id for r in stage(path, 1, "lessons", Rollout))
    assert visits == {prompt.id: 2 for prompt in new}  # 4 mini-batches of 4 over 8


def test_a_mini_batch_larger_than_the_pool_is_refused_before_the_run(tmp_path):
    with pytest.raises(RecipeError, match=r"learner\.batch is 9, and prompts has 8 .* smaller"):
        build.game(online_recipe("learner.batch=9"), tmp_path)


def test_a_creator_of_rounds_does_not_fit_an_online_learner_and_the_other_way_round(tmp_path):
    made = build.game(online_recipe(), tmp_path)
    offline = build.game(load("toy"), tmp_path)
    assert isinstance(offline.creator, Creator)
    with pytest.raises(RecipeError, match="an online learner needs a StreamCreator, not Creator"):
        replace(made, creator=offline.creator)
    with pytest.raises(RecipeError, match="on lessons needs a Creator, not StreamCreator"):
        replace(offline, creator=made.creator)


# ---------------------------------------------------------------- the command line


def test_check_counts_what_an_online_run_really_does(tmp_path):
    overrides = [w for o in ("rounds=3", "creator.select.keep=0.3") for w in ("--set", o)]
    found = json.loads(said("check", "toy-online", "--json", *overrides))
    out = said("run", "toy-online", str(tmp_path / "r"), "--json", *overrides)
    rounds = [json.loads(line) for line in out.splitlines()]
    assert found["samples"] == sum(r.get("samples", 0) for r in rounds) == 3 * 8 * 8 * 4
    assert found["tokens"] == found["samples"] * 8
    assert found["evolved prompts"] == sum(r.get("written", 0) for r in rounds)


def test_check_knows_no_number_of_children_of_an_own_evolver(tmp_path):
    own = "creator.evolve={kind: python, call: 'eva.toy:make_evolver'}"
    assert (
        json.loads(said("check", "toy-online", "--json", "--set", own))["evolved prompts"] is None
    )


def test_show_follows_a_child_of_a_mini_batch_back_to_the_given_prompt(game):
    path, _ = game
    used = {r.prompt.id for r in stage(path, 1, "lessons", Rollout)}
    child = next(c for c in stage(path, 1, "children", Child) if c.id in used)
    found = json.loads(said("show", str(path), child.id, "--json"))
    assert found["ancestors"][0]["id"] == child.parent
    assert found["ancestors"][-1]["parent"] is None
    assert "+" in found["answers"][0]["policy"]
    assert "answered in round 1 by skill-" in said("show", str(path), child.id)


def test_export_and_report_read_an_online_run(game, tmp_path):
    path, _ = game
    out = said("export", str(path), "prompts", "--out", str(tmp_path / "x.jsonl"))
    assert out.startswith(f"{len((tmp_path / 'x.jsonl').read_bytes().splitlines())} prompts")
    pytest.importorskip("altair")
    said("report", str(path), "--out", str(tmp_path / "p.html"))
    assert (tmp_path / "p.html").read_text("utf-8").lower().startswith("<!doctype html>")
