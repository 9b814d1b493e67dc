"""Claims about the game that must hold in code; all in the world of numbers."""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from eva import build, loop, toy
from eva.errors import RecipeError
from eva.records import Checkpoint, Child, Prompt, Rollout, ScoredPrompt
from eva.start import quiet, run_recipe
from eva.store import RunDir, held, read_records
from tests.world import contents, killed_at, online_recipe, played, recipe


def stage(path: Path, t: int, name: str, kind):
    return read_records(path / f"rounds/{t:03d}/{name}.jsonl", kind)


@pytest.fixture(scope="module")
def game(tmp_path_factory):
    path = tmp_path_factory.mktemp("game") / "run"
    return path, played(path)


def test_a_round_leaves_every_stage_under_its_own_name(game):
    path, _ = game
    names = {entry.name.removesuffix(".jsonl") for entry in (path / "rounds/001").iterdir()}
    assert names == {
        "pool", "tried", "scored", "parents", "written", "children", "born", "batch", "solved",
        "lessons", "learn", "checkpoint", "metrics.json",
    }  # fmt: skip


def test_round_0_is_plain(game):
    path, _ = game
    assert not (path / "rounds/000/scored.jsonl").exists()
    pool = stage(path, 0, "pool", Prompt)
    assert [r.prompt for r in stage(path, 0, "lessons", Rollout)] == pool


def test_parents_are_a_quarter_of_the_pool_and_children_four_of_each(game):
    path, _ = game
    parents = stage(path, 1, "parents", ScoredPrompt)
    children = stage(path, 1, "children", Child)
    assert len(parents) == 2  # round(0.25 * 8)
    assert len(children) == 8  # 4 each
    assert {c.parent for c in children} == {p.prompt.id for p in parents}
    assert all(c.by == "toy" for c in children)


def test_scores_are_best_minus_worst_and_know_their_age(game):
    path, _ = game
    scored = stage(path, 2, "scored", ScoredPrompt)
    tried = {
        r.prompt.id: r
        for file in sorted((path / "rounds/002/tried").iterdir())
        for r in read_records(file, Rollout)
    }
    for one in scored:
        rewards = tried[one.prompt.id].rewards
        assert one.info == pytest.approx(max(rewards) - min(rewards))
        assert (one.round, one.policy) == (2, tried[one.prompt.id].policy)


def test_lessons_are_four_fifths_newborn_and_the_pool_keeps_its_size(game):
    path, _ = game
    batch = stage(path, 1, "batch", Prompt)
    assert len(batch) == 8
    assert sum(prompt.born == 1 for prompt in batch) == 6  # round(0.8 * 8)
    assert [r.prompt for r in stage(path, 1, "lessons", Rollout)] == batch
    assert stage(path, 2, "pool", Prompt) == batch


def test_a_replayed_prompt_that_was_just_tried_is_not_answered_again(game):
    path, _ = game
    solved = [r for f in (path / "rounds/001/solved").iterdir() for r in read_records(f, Rollout)]
    assert {r.prompt.born for r in solved} == {1}
    policies = {r.policy for r in stage(path, 1, "lessons", Rollout)}
    assert len(policies) == 1


def test_every_answer_of_a_round_comes_from_the_policy_the_round_began_with(game):
    path, _ = game
    before = json.loads((path / "rounds/000/checkpoint.jsonl").read_text())
    assert {r.policy for r in stage(path, 1, "lessons", Rollout)} == {before["id"]}


def test_evolved_prompts_get_harder_and_the_policy_follows(game):
    path, rounds = game
    first, last = ([toy.difficulty(p) for p in stage(path, t, "pool", Prompt)] for t in (0, 3))
    assert min(last) > min(first)
    assert rounds[-1][1]["hard/sampled/reward"] > rounds[0][1]["hard/sampled/reward"]


def test_the_game_beats_the_same_prompts_on_harder_ones(tmp_path):
    # Three seeds; static prompts have nothing left to teach once the skill exceeds them.
    gains = []
    for seed in (1, 2, 3):
        ends = [
            played(tmp_path / f"{name}{seed}", f"seed={seed}", "rounds=8", "prompts.n=32", *arm)[-1]
            for name, arm in (("eva", []), ("static", ["creator=null"]))
        ]
        gains.append(ends[0][1]["hard/sampled/reward"] - ends[1][1]["hard/sampled/reward"])
    assert min(gains) > 0.1


def test_twice_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    played(tmp_path / "a")
    played(tmp_path / "b")
    played(tmp_path / "c", "seed=2")
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a["rounds/001/lessons.jsonl"] != c["rounds/001/lessons.jsonl"]


def test_answers_do_not_depend_on_the_chunks(tmp_path):
    played(tmp_path / "a", "chunk=3")
    played(tmp_path / "b", "chunk=100")
    a, b = (contents(tmp_path / name)["rounds/002/lessons.jsonl"] for name in "ab")
    assert a == b


def test_last_reuses_the_rewards_of_the_last_lessons(tmp_path):
    played(tmp_path / "run", "creator.estimate=last")
    assert not (tmp_path / "run/rounds/001/tried").exists()
    lessons = stage(tmp_path / "run", 0, "lessons", Rollout)
    scored = stage(tmp_path / "run", 1, "scored", ScoredPrompt)
    assert [s.prompt for s in scored] == [r.prompt for r in lessons]
    assert {s.round for s in scored} == {0}
    # A stale answer is no lesson: what is replayed is answered by the current policy.
    assert {r.round for r in stage(tmp_path / "run", 1, "lessons", Rollout)} == {1}


def test_last_in_the_very_first_round_has_nothing_to_reuse_and_answers_the_pool(tmp_path):
    played(tmp_path / "run", "creator.estimate=last", "creator.start=0")
    assert (tmp_path / "run/rounds/000/tried").is_dir()
    assert not (tmp_path / "run/rounds/001/tried").exists()


def test_stale_answers_are_no_lessons_whatever_a_learner_calls_its_checkpoints(tmp_path):
    (tmp_path / "own_learner.py").write_text(
        "from eva import Checkpoint\n"
        "def learn(start, lessons, *, out, seed):\n"
        "    return Checkpoint(uri='toy:0.3', id='always the same')\n"
    )
    path = tmp_path / "run"
    own = "learner={kind: python, call: 'own_learner:learn'}"
    list(run_recipe(recipe(own, "creator.estimate=last"), path, here=tmp_path))
    for t in range(3):
        assert {r.round for r in stage(path, t, "lessons", Rollout)} == {t}


def test_without_an_evolver_the_parents_are_the_lessons_and_the_pool_stays(tmp_path):
    played(tmp_path / "run", "creator.evolve=null")
    pool = stage(tmp_path / "run", 0, "pool", Prompt)
    parents = stage(tmp_path / "run", 2, "parents", ScoredPrompt)
    lessons = stage(tmp_path / "run", 2, "lessons", Rollout)
    assert [r.prompt for r in lessons] == [p.prompt for p in parents]
    assert stage(tmp_path / "run", 3, "pool", Prompt) == pool


def test_new_prompts_take_turns_round_by_round(tmp_path):
    played(tmp_path / "run", "creator=null", "new_prompts={kind: toy, n: 16, seed: 5}")
    new = toy.prompts(
        recipe("new_prompts={kind: toy, n: 16, seed: 5}", "creator=null").new_prompts, 1
    )
    assert stage(tmp_path / "run", 1, "pool", Prompt) == new[:8]
    assert stage(tmp_path / "run", 2, "pool", Prompt) == new[8:]


@pytest.mark.parametrize("source", ["pool", "parents", "first"])
def test_replay_comes_from_where_the_recipe_says(tmp_path, source):
    path = tmp_path / "run"
    played(path, f"creator.replay={source}", "prompts.n=40", "rounds=4")
    allowed = {
        "pool": {p.id for p in stage(path, 3, "pool", Prompt)},
        "parents": {p.prompt.id for p in stage(path, 3, "parents", ScoredPrompt)},
        "first": {p.id for p in stage(path, 0, "pool", Prompt)},
    }[source]
    replayed = [p for p in stage(path, 3, "batch", Prompt) if p.born != 3]
    assert len(replayed) == 8  # 40 - round(0.8 * 40)
    assert {p.id for p in replayed} <= allowed


def test_evaluation_measures_theta_0_every_so_often_and_the_last(tmp_path):
    rounds = played(tmp_path / "run", "rounds=5", "evaluate.every=2")
    assert sorted(f.name for f in (tmp_path / "run/evals").glob("*.json")) == [
        "000.json", "002.json", "004.json", "005.json",
    ]  # fmt: skip
    assert rounds[0][1]["hard/sampled/win_rate"] == 0.5
    assert "hard/sampled/reward" not in rounds[1][1]


def test_a_finished_run_is_read_not_played(tmp_path):
    first = played(tmp_path / "run")
    before = contents(tmp_path / "run")
    assert played(tmp_path / "run") == first[-1:]
    assert contents(tmp_path / "run") == before


def test_a_finished_run_can_be_given_more_rounds(tmp_path):
    played(tmp_path / "run", "rounds=2")
    played(tmp_path / "run", "rounds=4")
    played(tmp_path / "whole", "rounds=4")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


# ---------------------------------------------------------------- kill -9


def test_a_run_killed_at_any_write_goes_on_byte_for_byte(tmp_path):
    played(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    event = 1
    while killed_at(partial(played, tmp_path / f"run{event}"), event):
        played(tmp_path / f"run{event}")
        assert contents(tmp_path / f"run{event}") == whole, f"killed at write {event}"
        event += 1
    # Three rounds write some fifteen files each, in chunks of three prompts; two events a file.
    assert event > 100


def test_a_run_killed_again_and_again_arrives_all_the_same(tmp_path):
    played(tmp_path / "whole")
    for _ in range(40):
        if not killed_at(partial(played, tmp_path / "run"), 9):
            break
    else:
        pytest.fail("the run makes no progress between kills")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_importing_eva_and_checking_a_recipe_load_nothing_heavy():
    program = (
        "import sys, eva; before = set(sys.modules)\n"
        "import eva.cli.main, eva.cli.check\n"
        "eva.cli.check.check('toy'); eva.cli.check.check('playground-eva', 'playground-new')\n"
        "heavy = {'torch', 'transformers', 'datasets', 'accelerate', 'altair', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not {'typer', 'rich', 'yaml'} & before, before\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Witness:
    """Plug-ins of the toy world that write down the seeds and settings they are given."""

    def __init__(self, game):
        self.seen = {"policy": [], "evolver": [], "learner": [], "select": [], "sampling": []}
        self.game = replace(
            game,
            open_policy=self.open_policy,
            learner=self.learner(game.learner),
            creator=replace(
                game.creator,
                evolver=self.evolver(game.creator.evolver),
                select=self.select(game.creator.select),
            ),
        )

    @contextmanager
    def open_policy(self, checkpoint):
        with toy.open_policy(checkpoint) as policy:

            def watched(prompts, n, *, sampling, seed):
                self.seen["policy"].append(seed)
                self.seen["sampling"].append((n, sampling))
                return policy(prompts, n, sampling=sampling, seed=seed)

            yield watched

    def evolver(self, evolver):
        def watched(parents, policy, *, seed):
            self.seen["evolver"].append(seed)
            return evolver(parents, policy, seed=seed)

        return watched

    def learner(self, learner):
        def watched(start, lessons, *, out, seed):
            self.seen["learner"].append(seed)
            return learner(start, lessons, out=out, seed=seed)

        return watched

    def select(self, select):
        def watched(info_P, count, rng):
            self.seen["select"].append(rng.bit_generator.state["state"]["state"])
            return select(info_P, count, rng)

        return watched


def witnessed(path: Path, *overrides: str) -> dict[str, list]:
    witness = Witness(build.game(recipe(*overrides), path.parent))
    agree = lambda a, b: None  # noqa: E731
    with held(path, "x", {}, agree=agree, progress=quiet) as folder:
        list(loop.run(witness.game, folder))
    return witness.seen


def test_every_draw_of_a_run_has_its_own_seed(tmp_path):
    one = witnessed(tmp_path / "a", "chunk=100", "evaluate=null")
    two = witnessed(tmp_path / "b", "chunk=100", "evaluate=null", "seed=2")
    # Three rounds: one answer in the plain one, two each in the others; learner in all three.
    assert len(one["learner"]) == 3
    assert len(one["evolver"]) == len(one["select"]) == 2
    for draws in (one, two):
        answered = draws["policy"]
        assert len(set(answered)) == 3  # a prompt tried and solved in one round is answered alike
        assert len(set(draws["learner"])) == 3
        assert len(set(draws["evolver"])) == len(set(draws["select"])) == 2
    for name in ("policy", "evolver", "learner", "select"):
        assert not set(one[name]) & set(two[name]), name


def test_held_out_prompts_are_answered_greedily_and_sampled_from_the_whole_distribution(tmp_path):
    seen = witnessed(tmp_path / "a", "sampling.top_p=0.5", "evaluate.samples=2")
    held_out = {(n, s.temperature, s.top_p) for n, s in seen["sampling"]}
    assert held_out == {(1, 0.0, 1.0), (2, 1.0, 1.0), (4, 0.5, 0.5)}


def test_newborns_in_the_batch_are_drawn_not_taken_from_the_front(tmp_path):
    path = tmp_path / "run"
    played(path, "prompts.n=40")
    born = [p.id for p in stage(path, 1, "born", Prompt)]
    used = [p.id for p in stage(path, 1, "batch", Prompt) if p.id in set(born)]
    assert len(used) == 32
    assert set(used) != set(born[:32])


def test_from_scratch_every_update_starts_at_theta_0(tmp_path):
    played(tmp_path / "run", "learn_from=theta_0")
    answers = stage(tmp_path / "run", 0, "lessons", Rollout)[0].policy
    for t in range(3):
        lessons = stage(tmp_path / "run", t, "lessons", Rollout)
        (after,) = stage(tmp_path / "run", t, "checkpoint", Checkpoint)
        # The toy's skill is 0 at theta_0, and an update adds the mean margin of its lessons.
        learnt = toy.skill_of(RunDir(tmp_path / "run", quiet).located(after))
        assert learnt == pytest.approx(toy.mean_margin(lessons))
        # What answers is what was learnt last.
        assert {r.policy for r in lessons} == {answers}
        answers = after.id


def test_what_samples_for_itself_cannot_learn_from_scratch():
    with pytest.raises(RecipeError, match="learn_from is last"):
        online_recipe("learn_from=theta_0")
