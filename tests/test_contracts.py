"""What plug-ins return is checked at the border; a fault is one sentence, and the run goes on."""

from pathlib import Path

import pytest

from eva.contracts import checked_index, checked_metrics
from eva.errors import PlugInError, RecipeError
from eva.start import run_recipe
from tests.world import contents, played, recipe

PLUG_INS = """
import math
import numpy as np
from eva import Checkpoint, Child, EvaError, Response, BackEndError, toy
from pathlib import Path
from eva.parts.evolvers import ToyEvolver
from eva.parts.learners import ToyLearner
from eva.toy import reward as sound

def until_mended(sound):
    # Broken until the file "mended" lies in the working directory.
    def decorate(broken):
        def function(*args, **kwargs):
            return (sound if Path("mended").exists() else broken)(*args, **kwargs)
        return function
    return decorate

sound_reward = until_mended(sound)
sound_rule = until_mended(lambda prompt, response: float(response.text))
sound_evolver = until_mended(toy.make_evolver(ToyEvolver(kind="toy", children=4)))
sound_learner = until_mended(toy.make_learner(ToyLearner(kind="toy")))

@sound_reward
def raises(prompts, responses): raise KeyError("score")
@sound_reward
def shape(prompts, responses): return sound(prompts, responses)[:, :2]
@sound_reward
def ragged(prompts, responses): return [[1.0], [1.0, 2.0]]
@sound_reward
def text(prompts, responses): return [["good"] * len(g) for g in responses]
@sound_reward
def infinite(prompts, responses): return sound(prompts, responses) * math.inf
@sound_reward
def all_missing(prompts, responses): return sound(prompts, responses) * math.nan
def server_down(prompts, responses): raise BackEndError("the judge's server is gone: start it")
def some_missing(prompts, responses):
    rewards = sound(prompts, responses)
    rewards[:, 0] = math.nan
    return rewards
def booleans(prompts, responses): return sound(prompts, responses) > 0.5

@sound_rule
def one_raises(prompt, response): return 1 / 0
@sound_rule
def one_text(prompt, response): return "7"
@sound_rule
def one_list(prompt, response): return [1.0]
def one_missing(prompt, response): return None if response.text.startswith("-") else 1.5

@sound_evolver
def no_children(parents, policy, *, seed): return []
@sound_evolver
def not_children(parents, policy, *, seed): return [p.prompt for p in parents]
@sound_evolver
def none(parents, policy, *, seed): return None
def all_flawed(parents, policy, *, seed):
    return [Child(parent=p.prompt.id, method="m", by="b", flaw="refusal") for p in parents]
def copies(parents, policy, *, seed):
    return [Child(parent=p.prompt.id, messages=p.prompt.messages, method="m", by="b")
            for p in parents]

@sound_learner
def no_checkpoint(start, lessons, *, out, seed): return str(out)
@sound_learner
def forgets(start, lessons, *, out, seed): raise RuntimeError("out of memory")
def stays(start, lessons, *, out, seed): return start

def spread(rewards): return rewards.max(axis=1) - rewards.min(axis=1)
def short(rewards): return spread(rewards)[:-1]
def infinite_info(rewards): return spread(rewards) * math.inf
def text_info(rewards): return ["much"] * len(rewards)
def orphans(parents, policy, *, seed):
    return [Child(parent="nobody", messages=p.prompt.messages, method="m", by="b")
            for p in parents]
def no_file(path): raise FileNotFoundError(path)
def scaled(factor): return lambda rewards: factor * spread(rewards)
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "plug_ins_for_contracts.py").write_text(PLUG_INS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def python(name: str, kind: str = "python", **more) -> str:
    rest = "".join(f", {key}: {value}" for key, value in more.items())
    return f"{{kind: {kind}, call: 'plug_ins_for_contracts:{name}'{rest}}}"


BROKEN = {
    ("reward", "raises"): r"the reward raised KeyError: 'score'; mend it and run",
    ("reward", "shape"): r"shape \[3, 2\]; expected .* shape \[3, 4\] for 3 prompts with n=4",
    ("reward", "ragged"): r"a list of 2 \(list\) that is no array .*expected numbers of shape",
    ("reward", "text"): r"values of type <U4, such as 'good'; expected numbers",
    ("reward", "infinite"): r"returned inf for response 0 of prompt number 0",
    ("reward", "all_missing"): r"NaN for all 12 responses of the chunk; nothing can be learnt",
    ("rules", "one_raises"): r"ZeroDivisionError \(division by zero\) for prompt [0-9a-f]{20}",
    ("rules", "one_text"): r"returned '7' for prompt [0-9a-f]{20}; expected a number",
    ("rules", "one_list"): r"returned \[1\.0\] for prompt",
    ("creator.evolve", "no_children"): r"the evolver returned no children for 2 parents",
    ("creator.evolve", "not_children"): r"evolver returned a list of 2 \(Prompt\); expected",
    ("creator.evolve", "none"): r"the evolver returned a NoneType; expected a list of Child",
    ("learner", "no_checkpoint"): r"the learner returned a str; expected a Checkpoint",
    ("learner", "forgets"): r"the learner raised RuntimeError: out of memory",
}


@pytest.mark.parametrize(("seam", "name"), BROKEN)
def test_a_broken_contract_is_one_sentence_and_the_mended_run_goes_on(here, seam, name):
    kind = "rules" if seam == "rules" else "python"
    override = f"{seam.replace('rules', 'reward')}={python(name, kind)}"
    with pytest.raises(PlugInError, match=BROKEN[seam, name]):
        played(here / "run", "evaluate=null", "chunk=3", override)
    (here / "mended").touch()
    played(here / "run", "evaluate=null", "chunk=3", override)
    played(here / "whole", "evaluate=null", "chunk=3", override)
    assert contents(here / "run") == contents(here / "whole")


def test_errors_of_eva_itself_pass_through_a_plug_in(here):
    from eva.errors import BackEndError

    with pytest.raises(BackEndError, match="start it"):
        played(here / "run", f"reward={python('server_down')}", "evaluate=null")


def test_a_missing_reward_is_left_out_and_counted_never_zero(here):
    rounds = played(here / "run", f"reward={python('some_missing')}")
    assert rounds[0][1]["missing"] == 8.0  # one of each of eight prompts
    assert rounds[0][1]["reward"] > 0.1
    assert b'"rewards":[null,' in (here / "run/rounds/000/lessons.jsonl").read_bytes()
    assert rounds[0][1]["hard/greedy/missing"] == 4.0


def test_rules_may_miss_a_reward_and_booleans_are_numbers(here):
    rounds = played(here / "a", f"reward={python('one_missing', 'rules')}", "evaluate=null")
    assert rounds[0][1]["missing"] > 0
    assert rounds[0][1]["reward"] == 1.5
    assert rounds[0][1]["usable"] == 0.0
    played(here / "b", f"reward={python('booleans')}", "evaluate=null")


@pytest.mark.parametrize(("name", "flaw"), [("all_flawed", "refusal"), ("copies", "already in")])
def test_an_evolver_whose_children_all_fail_leaves_the_pool_to_replay(here, name, flaw):
    rounds = played(here / "run", f"creator.evolve={python(name)}", "evaluate=null")
    assert rounds[1][1]["flawed"] == rounds[1][1]["written"] == 2.0
    assert flaw in (here / "run/rounds/001/children.jsonl").read_text()
    assert rounds[1][1]["prompts"] == 8.0


def test_a_policy_that_breaks_its_contract_is_named(here):
    from contextlib import contextmanager

    from eva import build, loop
    from eva.start import quiet
    from eva.store import held

    sound = build.game(recipe(), here)
    not_responses = r"list of 1 .*for prompt [0-9a-f]{20}; expected a list of 4 Response"
    broken = {
        "returned a str": lambda prompts, n, *, sampling, seed: "no",
        not_responses: lambda prompts, n, *, sampling, seed: [["x"] for _ in prompts],
        "expected a list of 3 groups": lambda prompts, n, *, sampling, seed: [],
    }  # fmt: skip
    for number, (sentence, policy) in enumerate(broken.items()):

        @contextmanager
        def opened(checkpoint, policy=policy):
            yield policy

        game = sound.__class__(**{**vars(sound), "open_policy": opened, "evaluation": None})
        agree = lambda a, b: None  # noqa: E731
        with (
            held(Path(f"run{number}"), "x", {}, agree=agree, progress=quiet) as folder,
            pytest.raises(PlugInError, match=sentence),
        ):
            list(loop.run(game, folder))


def test_a_learner_may_leave_the_weights_as_they_are(here):
    rounds = played(here / "run", f"learner={python('stays')}")
    assert rounds[-1][1]["hard/sampled/win_rate"] == 0.5


def test_an_own_metric_serves_with_and_without_arguments(here):
    played(here / "a", f"creator.info={python('spread')}")
    played(here / "b", f"creator.info={python('scaled', args='{factor: 2.0}')}")
    # Min-max weights do not see the factor.
    a, b = (contents(here / name) for name in "ab")
    assert a["rounds/002/batch.jsonl"] == b["rounds/002/batch.jsonl"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            "nowhere_to_be_found:f",
            r"'nowhere_to_be_found' cannot be imported \(ModuleNotFoundError",
        ),
        ("plug_ins_for_contracts:raise_", r"there is no 'raise_'; did you mean 'raises'\?"),
        ("plug_ins_for_contracts:number", r"is a int; expected a function"),
    ],
)
def test_a_function_that_cannot_be_found_is_one_sentence(here, call, sentence):
    with pytest.raises(RecipeError, match=sentence):
        played(here / "run", f"reward={{kind: python, call: '{call}'}}")


def test_wrong_arguments_for_an_own_function_are_one_sentence(here):
    with pytest.raises(RecipeError, match=r"scaled cannot be called with \{'wrong': 1\}"):
        played(here / "run", f"creator.info={python('scaled', args='{wrong: 1}')}")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("short", r"metric returned shape \[7\]; expected numbers of shape \[8\]"),
        ("infinite_info", r"metric returned infinity; expected numbers of shape \[8\]"),
        ("text_info", r"metric returned a list of 8 \(str\); expected numbers"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_named(here, name, sentence):
    with pytest.raises(PlugInError, match=sentence):
        played(here / "run", f"creator.info={python(name)}")


def test_a_child_of_nobody_is_refused(here):
    with pytest.raises(PlugInError, match="a child of 'nobody', which is neither one of its"):
        played(here / "run", f"creator.evolve={python('orphans')}")


def test_a_factory_that_raises_is_named(here):
    with pytest.raises(PlugInError, match=r"the function plug_ins_for_contracts:no_file raised"):
        played(here / "run", f"reward={python('no_file', args='{path: x}')}")


@pytest.mark.parametrize(
    ("index", "sentence"),
    [([0, 0], "expected distinct integers"), ([0.5], "expected distinct"), ([9], "outside")],
)
def test_a_selector_that_breaks_its_contract_is_named(index, sentence):
    with pytest.raises(PlugInError, match=sentence):
        checked_index(index, 9)


def test_one_prompt_without_a_reward_is_its_own_affair(here):
    # In chunks of one prompt, the prompt whose rewards are all missing does not stop the run.
    (here / "picky.py").write_text(
        "from eva import toy\nimport math\n"
        "def reward(prompts, responses):\n"
        "    rewards = toy.reward(prompts, responses)\n"
        "    rewards[[toy.difficulty(p) < 0.3 for p in prompts]] = math.nan\n"
        "    return rewards\n"
    )
    own = "reward={kind: python, call: 'picky:reward'}"
    rounds = played(here / "run", own, "chunk=1", "evaluate=null")
    assert rounds[0][1]["missing"] > 0


def test_each_recipe_has_its_own_reward_file(here, monkeypatch):
    for name, value in (("a", 0.25), ("b", 0.75)):
        (here / name).mkdir()
        (here / name / "reward.py").write_text(f"def score(prompt, response): return {value}\n")
    (here / "reward.py").write_text("def score(prompt, response): return -1.0\n")
    own = recipe("reward={kind: rules, call: 'reward:score'}", "evaluate=null", "creator=null")
    for name, value in (("a", 0.25), ("b", 0.75)):
        rounds = list(run_recipe(own, here / name / "run", here=here / name))
        assert rounds[0][1]["reward"] == value


def test_a_module_that_fails_is_named_and_loads_once_it_is_mended(here):
    own = "reward={kind: rules, call: 'fragile:score'}"
    (here / "fragile.py").write_text("1 / 0\n")
    with pytest.raises(RecipeError, match=r"'fragile' cannot be imported \(ZeroDivisionError"):
        played(here / "run", own, "evaluate=null")
    (here / "fragile.py").write_text("def score(prompt, response): return 1.0\n")
    assert played(here / "run", own, "evaluate=null")[0][1]["reward"] == 1.0


@pytest.mark.parametrize("returned", [None, {"loss": "low"}, {1: 0.5}, [0.5]])
def test_what_a_trainee_says_of_a_mini_batch_is_numbers_by_name(returned):
    with pytest.raises(PlugInError, match="of a mini-batch; expected numbers by name"):
        checked_metrics(returned)
    assert checked_metrics({"loss": 1}) == {"loss": 1.0}
