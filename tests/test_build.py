"""From a recipe to a game."""

import runpy
import sys

import numpy as np
import pytest

from eva import build, start
from eva.build import creators, models
from eva.errors import RecipeError
from eva.extras import extra
from eva.game import Online, StreamCreator
from eva.parts.creators import OtherSelect, Proportional
from eva.parts.policies import HfPolicy, HttpPolicy, ToyPolicy
from eva.recipe import load
from eva.records import Message, Prompt
from tests.world import online_recipe, recipe


def chat(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def test_a_toy_game_is_made_of_its_recipe(tmp_path):
    game = build.game(recipe("seed=7", "n=5"), tmp_path)
    assert (game.seed, game.n, game.rounds, len(game.prompts)) == (7, 5, 3, 8)
    assert game.theta_0.uri == "toy:0.0"
    assert game.creator.keep == 0.25
    assert set(game.evaluation.sets) == {"easy", "hard"}


def test_without_evaluation_and_creator_there_is_none(tmp_path):
    game = build.game(recipe("evaluate=null", "creator=null"), tmp_path)
    assert game.evaluation is None
    assert game.creator is None
    assert game.gates == ()


@pytest.mark.parametrize(
    "part",
    [
        Proportional(),
        Proportional(floor=0.1),
        *(OtherSelect(kind=kind) for kind in ("rank", "greedy", "stratified", "uniform")),
    ],
    ids=lambda part: part.kind,
)
def test_every_selector_draws_distinct_prompts(part):
    info_P = np.array([0.0, 1.0, 2.0, 3.0, np.nan, 5.0, 6.0, 7.0])
    index_K = creators.select(part)(info_P, 3, np.random.default_rng(0))
    assert len(set(index_K.tolist())) == 3
    assert 4 not in index_K


def test_too_few_new_prompts_are_noticed_before_the_run(tmp_path):
    short = recipe("creator=null", "new_prompts={kind: toy, n: 15, seed: 3}")
    with pytest.raises(
        RecipeError, match=r"new_prompts has 15 prompts that can be used; 3 rounds of 8 .* need 16"
    ):
        build.game(short, tmp_path)


def test_held_out_prompts_are_refused_as_children(tmp_path):
    game = build.game(recipe(), tmp_path)
    held_out = game.evaluation.sets["hard"][0]
    flaws = [gate(held_out.messages) for gate in game.gates]
    assert flaws == ["it stands in the held-out set hard"]
    assert [gate(chat("99.0")) for gate in game.gates] == [None]


def test_a_learner_of_language_models_needs_a_language_model(tmp_path):
    with pytest.raises(RecipeError, match="learner kind 'dpo' needs a policy of kind 'hf'"):
        build.game(recipe("learner={kind: dpo}"), tmp_path)


@pytest.mark.parametrize(
    ("learner", "is_online"),
    [
        ("{kind: dpo}", False),
        ("{kind: sppo}", False),
        ("{kind: dpo, launch: [torchrun]}", False),
        ("{kind: command, run: [python, '{start}', '{pairs}', '{out}']}", False),
        ("{kind: rloo, steps: 3, batch: 5}", True),
        ("{kind: grpo, steps: 3, batch: 5}", True),
        ("{kind: online_dpo, steps: 3, batch: 5}", True),
    ],
)
def test_every_kind_of_learner_of_language_models_is_made(learner, is_online, tmp_path):
    pytest.importorskip("transformers")
    chosen = load("playground-static", [f"learner={learner}"])
    made = build.learner(chosen, tmp_path)
    assert isinstance(made, Online) == is_online
    if isinstance(made, Online):
        assert (made.steps, made.batch) == (3, 5)


def test_an_online_game_is_made_of_its_recipe(tmp_path):
    game = build.game(online_recipe("creator.buffer=7", "creator.max_age=3"), tmp_path)
    assert isinstance(game.creator, StreamCreator)
    assert (game.creator.keep, game.creator.buffer, game.creator.max_age) == (0.25, 7, 3)
    # Of 8 mini-batches 1 is warm-up (1/8) and 2 are mix-up (1/4).
    shares = [game.creator.share(step, 8) for step in range(4)]
    assert shares == pytest.approx([0.0, 0.4, 0.8, 0.8])
    assert isinstance(game.learner, Online)
    assert (game.learner.steps, game.learner.batch) == (4, 4)


def test_a_missing_extra_is_one_sentence_with_the_pip_command():
    with (
        pytest.raises(RecipeError, match=r"needs no_such_library, .* pip install 'eva-rlhf\[hf\]'"),
        extra("hf", "policy kind 'hf'"),
    ):
        import no_such_library  # noqa: F401


def test_a_missing_module_of_eva_itself_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError), extra("hf", "x"):
        import eva.no_such_module  # noqa: F401


def test_theta_0_is_named_by_its_files_or_by_its_revision(tmp_path):
    hub = build.theta_0(HfPolicy(model="org/model", revision="abc"))
    assert (hub.uri, hub.id) == ("org/model", "org/model@abc")
    assert build.theta_0(HfPolicy(model="org/model")).id == "org/model@main"
    assert build.theta_0(ToyPolicy(skill=0.5)).uri == "toy:0.5"
    shipped = build.theta_0(HfPolicy(model="playground"))
    assert shipped.uri.endswith("theta_0")
    assert len(shipped.id) == 20


def test_a_playground_game_is_made_of_its_recipe(tmp_path):
    pytest.importorskip("transformers")
    game = build.game(load("playground-new"), tmp_path)
    assert (len(game.prompts), len(game.new_prompts)) == (256, 7 * 256)
    assert {name: len(found) for name, found in game.evaluation.sets.items()} == {
        "hard": 400,
        "x0": 400,
    }
    every = [
        *game.prompts,
        *game.new_prompts,
        *(p for s in game.evaluation.sets.values() for p in s),
    ]
    assert len({p.id for p in every}) == len(every)
    too_long = Prompt(messages=chat("has 1 " * 20))
    assert "context" in next(f for gate in game.gates if (f := gate(too_long.messages)))
    evolving = build.game(load("playground-eva"), tmp_path)
    assert evolving.creator.estimate == "last"


def test_threads_are_the_recipe_s_or_torch_s_own():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        models.open_policy(HfPolicy(model="playground", threads=before + 1), None)
        assert torch.get_num_threads() == before + 1
        models.open_policy(HfPolicy(model="playground"), None)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_prompts_that_are_all_too_long_are_one_sentence(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "p.jsonl").write_text('{"prompt": "' + "has 1 " * 40 + '"}\n')
    long = load("playground-static", [f"prompts={{kind: jsonl, path: {tmp_path / 'p.jsonl'}}}"])
    with pytest.raises(
        RecipeError, match=r"no prompt is left .* the first because the prompt has 82 tokens"
    ):
        build.game(long, tmp_path)


def test_python_dash_m_eva_is_eva(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["eva", "version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("eva", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == start._version("eva-rlhf")


def test_facts_are_told_without_git_and_without_packages(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert start._commit() is None
    monkeypatch.setattr(start, "__file__", "/nowhere/src/eva/start.py")
    assert start._commit() is None
    assert start._version("no-such-package") is None


def test_given_and_new_prompts_that_stand_in_a_held_out_set_are_refused(tmp_path):
    # The recipe's set "easy" is drawn with seed 101: so is this X_0.
    same = recipe("prompts={kind: toy, n: 8, seed: 101}")
    with pytest.raises(RecipeError, match=r"all 8 were refused.*stands in the held-out set easy"):
        build.game(
            recipe("prompts={kind: toy, n: 8, seed: 101}", "evaluate.sets.easy.n=8"), tmp_path
        )
    game = build.game(same, tmp_path)
    assert len(game.prompts) == 4  # the set has four
    assert {r.flaw for r in game.refused} == {"it stands in the held-out set easy"}


def test_new_prompts_that_repeat_x_0_are_refused(tmp_path):
    more = recipe("creator=null", "rounds=2", "new_prompts={kind: toy, n: 20}")
    game = build.game(more, tmp_path)
    assert len(game.new_prompts) == 12  # drawn with the same seed, so the first eight are X_0
    assert not {p.id for p in game.prompts} & {p.id for p in game.new_prompts}
    assert {r.flaw for r in game.refused} == {"it stands in `prompts` already"}


def test_held_out_sets_are_the_same_for_every_seed_of_a_run(tmp_path):
    sets = "evaluate.sets={a: {kind: toy, n: 5, low: 7, high: 8}}"
    one, two = (build.game(recipe(sets, f"seed={s}"), tmp_path).evaluation.sets for s in (1, 2))
    assert one == two


def test_a_held_out_prompt_that_is_too_long_is_named_before_the_run(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "p.jsonl").write_text('{"prompt": "' + "has 1 " * 40 + '"}\n')
    sets = f"evaluate.sets={{a: {{kind: jsonl, path: {tmp_path / 'p.jsonl'}}}}}"
    with pytest.raises(
        RecipeError, match=r"evaluate\.sets\.a: prompt [0-9a-f]{20}: the prompt has"
    ):
        build.game(load("playground-static", [sets]), tmp_path)


def test_every_held_out_set_is_guarded_beside_one_of_the_playground(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "p.jsonl").write_text('{"prompt": "has 1 even no 7 up"}\n')
    own = f"evaluate.sets.own={{kind: jsonl, path: {tmp_path / 'p.jsonl'}}}"
    game = build.game(load("playground-eva", [own]), tmp_path)
    assert [g(chat("has 1 even no 7 up")) for g in game.gates].count(None) < len(game.gates)


def test_a_folder_that_is_no_model_is_a_wrong_recipe(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "m").mkdir()
    wrong = load("playground-static", [f"policy.model={tmp_path / 'm'}"])
    with pytest.raises(RecipeError, match=r"policy\.model: expected"):
        build.game(wrong, tmp_path)


def test_the_floor_of_the_recipe_reaches_the_selector():
    info_P = np.array([0.0, 1.0, 2.0, 3.0])
    never = creators.select(Proportional())
    always = creators.select(Proportional(floor=1.0))
    draws = [np.random.default_rng(seed) for seed in range(200)]
    assert not any(0 in never(info_P, 3, rng) for rng in draws)
    assert any(0 in always(info_P, 3, np.random.default_rng(seed)) for seed in range(200))


def test_a_run_goes_on_only_with_the_same_texts(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, text in (("b", "two {prompt}"), ("a", "one {prompt}")):
        (tmp_path / f"mine/{name}.md").write_text(text)
    (tmp_path / "one.md").write_text("{examples}")
    chosen = recipe(
        f"creator.evolve={{kind: evol_instruct, by: {{kind: self}}, templates: {tmp_path}/mine}}",
        "learner={kind: python, call: 'a:b'}",
    )
    files = build.text_files(chosen)
    assert files == [("creator.evolve.templates", str(tmp_path / "mine"))]
    assert build.texts(tmp_path / "mine") == ["a.md", "one {prompt}", "b.md", "two {prompt}"]
    assert build.texts(tmp_path / "one.md") == ["one.md", "{examples}"]
    assert build.text_files(recipe()) == []


def test_models_of_one_name_are_kept_apart_by_their_place(tmp_path):
    part = HttpPolicy(kind="http", model="default", urls=("http://a/v1",))
    one, two = (models.asked(part, tmp_path, place) for place in ("reward.by", "x.reward.by"))
    assert one.name == two.name == "http default"
    ids = {asked._checkpoint.id for asked in (one, two)}
    assert ids == {"reward.by default", "x.reward.by default"}


def test_a_run_goes_on_only_with_the_same_judge(tmp_path):
    judge = tmp_path / "judge"
    judge.mkdir()
    (judge / "config.json").write_text("{}")
    part = f"{{kind: judge, by: {{kind: http, model: {judge}, urls: ['http://a/v1']}}}}"
    chosen = recipe(f"reward={part}", "evaluate=null")
    game = build.game(chosen, tmp_path)
    before = build.inputs(game, chosen)
    assert build.model_folders(chosen) == [("reward.by.model", str(judge))]
    (judge / "config.json").write_text('{"other": 1}')
    after = build.inputs(game, chosen)
    assert [key for key in after if after[key] != before[key]] == ["reward.by.model"]
    assert "policy.model" not in after
