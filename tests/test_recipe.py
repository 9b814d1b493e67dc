"""From YAML to a recipe: base files, overrides, differences, and one sentence for each mistake."""

import json

import pytest
import yaml

from eva import recipe as recipes
from eva.config import Recipe
from eva.errors import RecipeError, RunDirError
from tests.world import online_recipe, recipe

TOY = recipes.found("toy").read_text()


def written(tmp_path, text: str, name: str = "r.yaml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", recipes.shipped())
def test_every_shipped_recipe_is_sound_and_survives_yaml(name):
    loaded = recipes.load(name)
    assert loaded.name == name
    assert Recipe.model_validate(yaml.safe_load(recipes.as_yaml(loaded))) == loaded


@pytest.mark.parametrize("name", ["1e3", "2.5E-1", "010", "yes", "null", "~"])
def test_a_text_that_looks_like_a_number_survives_yaml(name):
    named = recipe().model_copy(update={"name": name})
    assert recipes.parsed(recipes.as_yaml(named))["name"] == name
    numbers = {"a": 1e-6, "b": 1000.0, "c": 5, "d": "1e-6"}
    assert recipes.parsed(recipes.dumped(numbers)) == numbers


def test_a_recipe_that_is_nested_too_deeply_is_one_sentence(tmp_path):
    with pytest.raises(RecipeError, match="is no YAML: maximum recursion depth"):
        recipes.load(written(tmp_path, "a: " + "[" * 5000))


def test_the_arms_of_the_playground_differ_in_a_line_or_two():
    eva = recipes.load("playground-eva")
    found = {
        name: {key for key, _, _ in recipes.differences(eva, recipes.load(f"playground-{name}"))}
        for name in ("uniform", "greedy", "no-evolve")
    }
    assert found["uniform"] == {"name", "creator.info"}
    assert found["greedy"] == {"name", "creator.select.kind", "creator.select.floor"}
    assert {k.rpartition("evolve")[1] or k for k in found["no-evolve"]} == {
        "name", "creator.estimate", "evolve",
    }  # fmt: skip


def test_a_base_is_merged_and_another_kind_replaces_a_part(tmp_path):
    written(tmp_path, TOY, "base.yaml")
    text = "base: base.yaml\nname: mine\nn: 7\ncreator: {select: {kind: greedy}, fresh: 0.5}\n"
    mine = recipes.load(written(tmp_path, text))
    assert (mine.n, mine.creator.fresh, mine.creator.select.kind) == (7, 0.5, "greedy")
    assert mine.creator.evolve.children == 4
    assert mine.creator.select.keep == 0.25


def test_a_base_may_be_a_shipped_recipe_and_a_part_may_be_taken_away(tmp_path):
    mine = recipes.load(written(tmp_path, "base: toy\nname: mine\ncreator: null\n"))
    assert mine.creator is None


def test_paths_are_relative_to_the_recipe_that_names_them(tmp_path):
    (tmp_path / "deep").mkdir()
    below = TOY.replace("{kind: toy, n: 32}\nreward", "{kind: jsonl, path: p.jsonl}\nreward")
    written(tmp_path, below, "deep/base.yaml")
    mine = recipes.load(written(tmp_path, "base: deep/base.yaml\nname: mine\n"))
    assert mine.prompts.path == str(tmp_path / "deep/p.jsonl")


def test_a_data_set_beside_the_recipe_is_a_folder_and_elsewhere_a_hub_id(tmp_path):
    (tmp_path / "here").mkdir()
    text = TOY.replace("{kind: toy, n: 32}\nreward", "{kind: dataset, path: PLACE}\nreward")
    for place, expected in (("here", str(tmp_path / "here")), ("org/set", "org/set")):
        mine = recipes.load(written(tmp_path, text.replace("PLACE", place)))
        assert mine.prompts.path == expected


def test_overrides_come_last_and_are_yaml():
    changed = recipes.load("toy", ["learner.lr=1e-3", "creator.info=var", "evaluate=null"])
    assert (changed.learner.lr, changed.creator.info, changed.evaluate) == (0.001, "var", None)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("learner.beta=1", r"unknown key 'learner\.beta'; .*known: kind, lr"),
        ("creator.inof=var", r"unknown key 'creator\.inof'; did you mean 'info'\?"),
        (
            "creator.select={kind: greedy, kepe: 1}",
            r"unknown key 'creator\.select\.kepe'; did you mean 'keep'\?",
        ),
        ("evaluate.sets.easy.nn=1", r"unknown key 'evaluate\.sets\.easy\.nn'; .*known: high"),
        ("rouns=3", r"unknown key 'rouns'; did you mean 'rounds'\?"),
        ("rounds=many", r"rounds: input should be a valid integer.*, not 'many'"),
        ("rounds=0", r"rounds: input should be greater than or equal to 1, not 0"),
        ("sampling.top_p=2", r"sampling\.top_p: input should be less than or equal to 1, not 2"),
        ("learner.kind=dpoo", r"learner\.kind is 'dpoo'; did you mean 'dpo'\? known: command, dpo"),
        (
            "evaluate.sets.new={n: 3}",
            r"'evaluate\.sets\.new' has no 'kind', which says what kind of part it is",
        ),
        ("reward={kind: rules}", r"the key 'reward\.call' is missing"),
        ("reward={kind: rules, call: 'no colon'}", r"reward\.call: string should match pattern"),
        ("new_prompts={kind: toy}", r"creator and new_prompts exclude each other"),
        ("learner={kind: dpo, steps: 3}", r"learner: give either epochs or steps"),
        ("novalue", r"--set 'novalue': expected key=value"),
        ("=3", r"expected key=value"),
        ("n={", r"'\{' is no YAML value"),
        ("creator.info=a_mn", r"creator\.info is 'a_mn'; did you mean 'a_min'\? known: a_avg"),
        ("prompts={kind: toy, low: 5}", r"low 5\.0 is not below high 1\.0"),
    ],
)
def test_a_mistake_is_one_sentence(override, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        recipes.load("toy", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        (
            "toy-online",
            "creator.warmup=0.9",
            r"warmup 0\.9 and mixup 0\.25 are more than the whole",
        ),
        (
            "toy-online",
            "learner={kind: toy}",
            r"'toy' needs a creator of kind 'rounds', not 'stream'",
        ),
        (
            "toy",
            "learner={kind: toy_online}",
            r"learner kind 'toy_online' needs a creator of kind 'stream', not 'rounds'",
        ),
    ],
)
def test_a_creator_that_does_not_fit_is_one_sentence(name, override, sentence):
    with pytest.raises(RecipeError, match=sentence):
        recipes.load(name, [override])


def test_several_mistakes_are_counted():
    with pytest.raises(RecipeError, match=r"\(and 1 more\)"):
        recipes.load("toy", ["rouns=3", "nn=4"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", r"r\.yaml is no YAML"),
        ("- a\n- b\n", r"r\.yaml holds list; expected keys and values"),
        ("", r"r\.yaml holds NoneType"),
        ("base: 3\n", r"base is 3; expected a path or the name of a recipe"),
        ("base: playground-evo\n", r"no recipe 'playground-evo'.*did you mean 'playground-eva'\?"),
        ("name: x\n", r"the key 'rounds' is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(RecipeError, match=sentence):
        recipes.load(written(tmp_path, text))


def test_a_recipe_that_is_not_utf8_is_one_sentence(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="is no YAML"):
        recipes.load(str(tmp_path / "r.yaml"))


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"no recipe 'tou': no such file, .*'toy'\? known: .*toy"):
        recipes.load("tou")


def test_differences_name_dotted_keys_and_both_values():
    assert recipes.differences(recipe(), recipe("n=5", "creator=null"))[0] == ("n", 4, 5)
    keys = [key for key, _, _ in recipes.differences(recipe(), recipe("creator=null"))]
    assert "creator.info" in keys
    assert recipes.differences(recipe(), recipe()) == []


def test_rounds_may_grow_but_not_where_phases_are_shares_of_all_rounds():
    recipes.must_agree(recipes.as_yaml(recipe("rounds=3")), recipes.as_yaml(recipe("rounds=9")))
    plain = [recipes.as_yaml(online_recipe("creator=null", f"rounds={n}")) for n in (2, 9)]
    recipes.must_agree(*plain)
    with pytest.raises(RunDirError, match="rounds is 2 there and 9 here"):
        recipes.must_agree(
            recipes.as_yaml(online_recipe()), recipes.as_yaml(online_recipe("rounds=9"))
        )


def test_the_digest_sees_every_key_but_the_number_of_rounds():
    assert recipes.digest(recipe()) == recipes.digest(recipe("rounds=9"))
    assert recipes.digest(recipe()) != recipes.digest(recipe("seed=9"))


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_base_that_leads_back_is_one_sentence(tmp_path, names):
    for name, base in zip(names, [*names[1:], names[0]], strict=True):
        written(tmp_path, f"base: {base}.yaml\nname: {name}\n", f"{name}.yaml")
    with pytest.raises(RecipeError, match="leads back to a recipe that it is a base of"):
        recipes.load(str(tmp_path / "a.yaml"))


def test_an_alias_that_holds_itself_is_one_sentence(tmp_path):
    with pytest.raises(RecipeError):
        recipes.load(written(tmp_path, TOY + "sampling: &a {x: *a}\n"))


def test_arguments_of_own_functions_are_left_as_they_are(tmp_path):
    (tmp_path / "model").mkdir()
    args = "{path: v1/score, model: model, rate: 1e-6}"
    text = f"base: toy\nname: x\nreward: {{kind: python, call: 'a:b', args: {args}}}\n"
    mine = recipes.load(written(tmp_path, text))
    assert mine.reward.args == {"path": "v1/score", "model": "model", "rate": 1e-6}


def test_an_overriding_path_is_relative_to_where_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = recipes.load("toy", ["prompts={kind: jsonl, path: p.jsonl}"])
    assert mine.prompts.path == str(tmp_path / "p.jsonl")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "000.json"])
def test_a_held_out_set_has_a_plain_name(name):
    with pytest.raises(RecipeError):
        recipes.load("toy", [f"evaluate.sets={{'{name}': {{kind: toy}}}}"])


def test_training_on_the_parents_needs_a_fresh_estimate():
    with pytest.raises(RecipeError, match="evolve null needs estimate fresh"):
        recipes.load("toy", ["creator.evolve=null", "creator.estimate=last"])


NESTED = """
base: toy
name: x
policy: {kind: http, model: model, urls: [http://a/v1]}
learner: {kind: python, call: "a:b"}
reward:
  kind: sum
  terms:
    - reward: {kind: judge, rubric: strict.md, by: {kind: http, model: judge, urls: [http://b/v1]}}
    - {weight: 0.5, reward: {kind: length, penalty: 0.1, of: {kind: hf, model: model}}}
creator:
  evolve: {kind: evol_instruct, by: {kind: self}, templates: mine}
  gates: {contamination: {sets: {arena: {kind: jsonl, path: arena.jsonl}}}}
"""


def test_files_that_parts_of_parts_name_are_relative_to_the_recipe_too(tmp_path):
    (tmp_path / "strict.md").write_text("{prompt} {response}")
    for folder in ("model", "mine", "judge"):
        (tmp_path / folder).mkdir()
    mine = recipes.load(written(tmp_path, NESTED))
    judge, shorter = (term.reward for term in mine.reward.terms)
    assert judge.rubric == str(tmp_path / "strict.md")
    assert judge.by.model == "judge"  # what its servers call it, whatever lies beside the recipe
    assert shorter.of.model == mine.policy.model == str(tmp_path / "model")
    assert mine.creator.evolve.templates == str(tmp_path / "mine")
    assert mine.creator.gates.contamination.sets["arena"].path == str(tmp_path / "arena.jsonl")


@pytest.mark.parametrize("text", ["first {prompt}\nsecond", "{prompt} " * 99])
def test_a_text_where_a_file_may_stand_is_a_text(tmp_path, text):
    part = f"{{kind: self_instruct, by: {{kind: self}}, template: {json.dumps(text)}}}"
    assert recipes.load("toy", [f"creator.evolve={part}"]).creator.evolve.template == text


@pytest.mark.parametrize(
    "override",
    ["policy.urls=[http://c/v1]", "policy.concurrency=1", "policy.price={input: 1, output: 1}",
     "reward.terms.1.reward.of.device=cpu"],
)  # fmt: skip
def test_whom_to_ask_and_how_may_change_on_the_way(tmp_path, override):
    path = written(tmp_path, NESTED)
    old = recipes.load(path)
    if "terms" in override:
        text = NESTED.replace("kind: hf, model: model", "kind: hf, model: model, device: cpu")
        new = recipes.load(written(tmp_path, text))
    else:
        new = recipes.load(path, [override])
    assert recipes.differences(old, new)
    recipes.must_agree(recipes.as_yaml(old), recipes.as_yaml(new))
    assert recipes.digest(old) == recipes.digest(new)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [("weight: 0.5", "weight: 0.6", "reward.terms.1.weight"),
     ("model: judge", "model: other", "reward.terms.0.reward.by.model"),
     ("{kind: self}", "{kind: hf, model: m}", "creator.evolve.by.kind")],
)  # fmt: skip
def test_what_is_asked_may_not(tmp_path, old, new, key):
    one = recipes.as_yaml(recipes.load(written(tmp_path, NESTED)))
    two = recipes.as_yaml(recipes.load(written(tmp_path, NESTED.replace(old, new))))
    with pytest.raises(RunDirError, match=f"{key} is "):
        recipes.must_agree(one, two)


@pytest.mark.parametrize("learner", ["dpo", "trl"])
def test_servers_of_a_policy_that_learns_must_be_able_to_load_it(learner):
    part = "{kind: dpo}" if learner == "dpo" else "{kind: trl}"
    over = [f"learner={part}", "policy={kind: http, model: m, urls: [http://a/v1]}"]
    with pytest.raises(RecipeError, match=r"policy\.reload is none.*answer with theta_0 for ever"):
        recipes.load("playground-eva", over)
    recipes.load("playground-eva", [*over, "policy.reload=eva"])


@pytest.mark.parametrize(
    "reward",
    ["{kind: pairwise, call: 'a:b'}",
     "{kind: length, penalty: 1, of: {kind: judge, mode: pairs, by: {kind: hf, model: m}}}",
     "{kind: sum, terms: [{reward: {kind: pairwise, model: m}}]}"],
)  # fmt: skip
def test_a_reward_that_compares_measures_no_checkpoint(reward):
    for key in ("reward", "evaluate.reward", "evaluate.monitor.reward"):
        with pytest.raises(RecipeError, match="cannot measure a checkpoint"):
            recipes.load("toy", [f"{key}={reward}"])
    recipes.load("toy", [f"reward={reward}", "evaluate.reward={kind: toy}"])
    recipes.load("toy", [f"reward={reward}", "evaluate=null"])


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [("args: {budget: 3}", "args: {budget: 7}", "reward.args.budget"),
     ("operators: {key: 1}", "operators: {key: 2}", "creator.evolve.operators.key"),
     ("memory: {kind: toy, n: 3}", "memory: {kind: toy, n: 4}", "evaluate.sets.memory.n"),
     ("body: {threads: 1}", "body: {threads: 2}", "creator.evolve.by.body.threads")],
)  # fmt: skip
def test_names_that_users_give_are_no_keys_of_how(tmp_path, old, new, key):
    text = (
        "base: toy\nname: x\nreward: {kind: python, call: 'a:b', args: {budget: 3}}\n"
        "creator: {evolve: {kind: evol_instruct, operators: {key: 1}, by: {kind: http, model: m, "
        "urls: [http://a/v1], body: {threads: 1}}}}\n"
        "evaluate: {sets: {memory: {kind: toy, n: 3}}}\n"
    )
    one, two = (
        recipes.as_yaml(recipes.load(written(tmp_path, one)))
        for one in (text, text.replace(old, new))
    )
    with pytest.raises(RunDirError, match=f"{key} is "):
        recipes.must_agree(one, two)


def test_a_learner_that_samples_for_itself_needs_its_weights_in_this_process():
    with pytest.raises(RecipeError, match="learner kind 'rloo' needs a policy of kind 'hf', not"):
        recipes.load("playground-rloo", ["policy={kind: http, model: m, urls: [http://a/v1]}"])


@pytest.mark.parametrize(
    ("part", "sentence"),
    [("policy={kind: http, model: m}", "needs either urls .* or serve"),
     ("policy={kind: http, model: m, urls: [http://a], budget: 1}", "budget needs price"),
     ("reward={kind: hf, model: m, trust_remote_code: true}", "needs a revision"),
     ("reward={kind: pairwise}", "give either call .* or model"),
     ("reward={kind: judge, by: {kind: hf, model: m}, low: 3, high: 3}", "is not below high"),
     ("reward={kind: judge, by: {kind: hf, model: m}, votes: 2}", "they would agree"),
     ("creator.evolve={kind: evol_instruct, by: {kind: self}, operators: {deepen: 0}}",
      "no weight above 0"),
     ("creator.evolve={kind: evol_instruct}", r"creator\.evolve\.by' is missing")],
)  # fmt: skip
def test_parts_that_cannot_be_meant_are_refused(part, sentence):
    with pytest.raises(RecipeError, match=sentence):
        recipes.load("toy", ["learner={kind: python, call: 'a:b'}", part])


def test_a_selector_is_the_paper_s_unless_said():
    assert recipes.load("toy", ["creator.select.keep=0.5"]).creator.select.kind == "proportional"


def test_rounds_cannot_grow_where_learning_rates_are_shares_of_all_rounds():
    plain = [
        recipes.as_yaml(recipes.load("playground-rloo", ["creator=null", f"rounds={n}"]))
        for n in (2, 4)
    ]
    with pytest.raises(RunDirError, match="rounds is 2 there and 4 here"):
        recipes.must_agree(*plain)


@pytest.mark.parametrize("override", ["sampling.temperature=0.7", "sampling.top_p=0.9"])
def test_a_policy_gradient_needs_samples_of_the_policy_itself(override):
    with pytest.raises(RecipeError, match=r"'rloo' follows .* needs sampling\.temperature 1"):
        recipes.load("playground-rloo", [override])
    assert recipes.load("playground-online-dpo", [override]).learner.kind == "online_dpo"


def test_rmsprop_takes_no_weight_decay():
    with pytest.raises(RecipeError, match=r"weight_decay 0\.1 needs optimizer adamw"):
        recipes.load("playground-sppo", ["learner.weight_decay=0.1"])
