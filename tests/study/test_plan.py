"""The file of a study: what may stand in it, and what is refused with a sentence."""

import doctest
import math
from datetime import date

import pytest

from eva.errors import RecipeError
from eva.study import load, plan
from tests.study.small import FIELDS, TUNED, small

FILE = """
name: main
question: Which?
base: toy
factors:
  size: {8: {}, 16: {prompts: {n: 16}}}
  help: {off: , on: {n: 6}}
axes: [size]
pool: [help]
arms:
  eva:
  static: {creator: null}
tune: {seeds: [1], grid: {learner.lr: [1e-1, 2]}, by: hard/sampled/reward}
seeds: [4, 5]
metrics: [hard/sampled/reward]
claims:
  - {better: eva, than: static, on: hard/sampled/reward, where: {size: 8}}
"""


def test_the_examples_of_the_page_hold():
    assert doctest.testmod(plan).failed == 0


def test_a_file_is_read_with_the_words_that_yaml_takes_for_something_else(tmp_path):
    (tmp_path / "main.yaml").write_text(FILE)
    study = load(tmp_path / "main.yaml")
    assert study.claims[0].on == "hard/sampled/reward"
    assert study.claims[0].where == {"size": "8"}
    assert list(study.factors["size"]) == ["8", "16"]
    assert study.factors["help"] == {"off": {}, "on": {"n": 6}}
    assert study.arms["eva"] == {}
    assert study.tune.grid == ({"learner.lr": 0.1}, {"learner.lr": 2})
    assert study.keep == "first"


def test_levels_are_crossed_where_they_are_free_and_stand_at_the_first_elsewhere():
    factors = {"a": {"x": {}, "y": {}}, "b": {"p": {}, "q": {}}}
    study = small(factors=factors)
    assert plan.places(study, ["a", "b"]) == [
        {"a": "x", "b": "p"},
        {"a": "x", "b": "q"},
        {"a": "y", "b": "p"},
        {"a": "y", "b": "q"},
    ]
    assert plan.places(study, ["b"]) == [{"a": "x", "b": "p"}, {"a": "x", "b": "q"}]


def test_a_level_may_bring_a_grid_of_its_own():
    tune = TUNED["tune"] | {"over": ["gain"]}
    factors = {"gain": {"fast": {}, "slow": {"grid": [{"n": 6}, {}]}}}
    study = small(factors=factors, tune=tune)
    assert plan.grid(study, {"gain": "fast"}) == ({"n": 3}, {"n": 4})
    assert plan.grid(study, {"gain": "slow"}) == ({"n": 6}, {})
    assert plan.grid(small(), {}) == ({},)
    assert plan.tuned_at(study, "eva", {"gain": "slow"}) == ("eva", (("gain", "slow"),))
    assert plan.tuned_at(small(), "eva", {}) == ("eva", ())


def test_labels_tell_keys_of_one_last_name_apart_and_are_names_of_files():
    assert plan.label({"a.lr": 1, "b.lr": 2}) == "a.lr=1,b.lr=2"
    assert plan.label({"creator.select": {"kind": "greedy"}}) == "select=kind_greedy"
    assert plan.label({"learner.kind": "a/b"}) == "kind=a_b"


CLAIM = {"better": "eva", "than": "static", "on": "x"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"arm": {}}, "unknown key 'arm'; did you mean 'arms'"),
        ({"claims": [CLAIM | {"were": {}}]}, "unknown key 'claims.0.were'; did you mean 'where'"),
        ({"tune": {"seed": [1]}}, "unknown key 'tune.seed'; did you mean 'seeds'"),
        ({"probe": {"kind": "python", "call": "a:b", "arg": 1}}, "unknown key 'probe.arg'"),
        ({"claims": [{"better": "eva"}]}, "the key 'claims.0.than' is missing"),
        ({"seeds": []}, "seeds: tuple should have at least 1 item"),
        ({"seeds": [1, 1]}, "seeds names a seed twice: 1, 1"),
        ({"seeds": [7], **TUNED}, "seeds and tune.seeds share 7"),
        ({"against": "evo"}, "against names the arm 'evo'; did you mean 'eva'"),
        ({"claims": [CLAIM | {"better": "evo"}]}, "claims.0.better names the arm 'evo'; did you"),
        ({"claims": [CLAIM | {"than": "eva"}]}, "claims.0 sets 'eva' against itself"),
        ({"claims": [CLAIM | {"where": {"a": "b"}}]}, "claims.0.where names the factor 'a'; there"),
        (
            {**TUNED, "claims": [CLAIM | {"where": {"gain": "fats"}}]},
            "claims.0.where.gain names the level 'fats'; did you mean 'fast'",
        ),
        (
            {**TUNED, "pool": ["gain"], "claims": [CLAIM | {"where": {"gain": "fast"}}]},
            "claims.0.where names 'gain', over which claims are pooled",
        ),
        ({"pool": ["gain"]}, "pool names the factor 'gain'; there is none"),
        ({**TUNED, "pool": ["gian"]}, "pool names the factor 'gian'; did you mean 'gain'"),
        ({**TUNED, "axes": ["gian"]}, "axes names the factor 'gian'; did you mean 'gain'"),
        ({**TUNED, "axes": ["gain"]}, "axes names 'gain', whose level 'fast' is no amount"),
        ({**TUNED, "axes": ["gain"], "pool": ["gain"]}, "axes and pool both name 'gain'"),
        ({"arms": {"theta_0": {}}}, "the arm theta_0 needs another name"),
        ({"arms": {}}, "arms: dictionary should have at least 1 item"),
        ({"arms": {"a/b": {}}}, "arms.a/b: 'a/b' is the name of a folder; write letters"),
        ({"arms": {"a--b": {}}}, "'a--b' is the name of a folder"),
        ({"arms": {"..": {}}}, "'..' is the name of a folder"),
        ({"name": "my study"}, "'my study' is the name of a folder"),
        ({"metrics": []}, "metrics: tuple should have at least 1 item"),
        ({"tune": TUNED["tune"] | {"over": ["a"]}}, "tune.over names the factor 'a'; there is"),
        ({"tune": TUNED["tune"] | {"grid": {"n": 3}}}, "tune.grid: expected keys with lists"),
        ({"tune": TUNED["tune"] | {"grid": {"n": []}}}, "expected at least one setting"),
        ({"tune": TUNED["tune"] | {"grid": {1: [2]}}}, "tune.grid: expected dotted keys that"),
        ({"tune": TUNED["tune"] | {"grid": [{"n": date(2024, 1, 1)}]}}, "came {'n': datetime.dat"),
        ({"tune": TUNED["tune"] | {"grid": {"n": [b"x"]}}}, "came {'n': b'x'}"),
        ({"tune": TUNED["tune"] | {"grid": {"n": [math.inf]}}}, "finite numbers"),
        (
            {"tune": TUNED["tune"] | {"grid": [{"n": 3}, {"n": 3}]}},
            "two settings have the label 'n=3'; each is tried once",
        ),
        (
            {"factors": {"a": {"x": {"grid": {"n": [3]}}}}},
            "factors.a.x.grid needs 'a' among the factors in tune.over",
        ),
        (
            {
                "factors": {"a": {"x": {"grid": 3}}},
                "tune": TUNED["tune"] | {"over": ["a"]},
            },
            "factors.a.x.grid: expected keys with lists",
        ),
        ({"keep": "some"}, "keep: input should be 'all', 'first' or 'none'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(keys, said):
    with pytest.raises(RecipeError) as error:
        small(**keys)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("small: ")


def test_a_file_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no study '.*gone\.yaml'"):
        load(tmp_path / "gone.yaml")
    file = tmp_path / "s.yaml"
    for text, said in (("a: [", "is no YAML"), ("- a", "holds list; expected keys and values")):
        file.write_text(text)
        with pytest.raises(RecipeError, match=said):
            load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is no YAML"):
        load(file)
    file.write_text("name: x\n")
    with pytest.raises(RecipeError, match=r"s\.yaml: the key 'question' is missing"):
        load(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eva: {}\n  eva: {n: 3}", "line 10: eva is one key, and stands there twice"),
        ("8: {}\n  '8': {n: 3}", "line 10: 8 is one key"),
        ("0.30: {}\n  0.3: {n: 3}", r"line 10: 0\.30 and 0\.3 is one key"),
        ("true: {}\n  'true': {}", "line 10: true is one key"),
    ],
)
def test_a_key_stands_once_in_one_spelling(tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(
        f"name: x\nquestion: y\nbase: toy\nseeds: [1]\nmetrics:\n  - a\nchange:\narms:\n  {text}\n"
    )
    with pytest.raises(RecipeError, match=said):
        load(tmp_path / "s.yaml")


def test_names_are_what_they_look_like(tmp_path):
    text = FILE.replace("8: {}, 16:", "010: {}, 1:30: {n: 3}, 1_6: {n: 4}, 16:")
    text = text.replace("axes: [size]", "axes: []").replace("size: 8}", "size: 010}")
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(RecipeError, match="'1:30' is the name of a folder; write letters"):
        load(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_text(text.replace("1:30", "2024-01-01"))
    study = load(tmp_path / "s.yaml")
    assert list(study.factors["size"]) == ["010", "2024-01-01", "1_6", "16"]
    assert study.claims[0].where == {"size": "010"}


def test_what_stands_in_several_places_is_written_once(tmp_path):
    text = FILE.replace("off: , on: {n: 6}", "off: , on: &on {n: 6}, more: {<<: *on, chunk: 3}")
    (tmp_path / "s.yaml").write_text(text.replace("eva:\n", "eva: *on\n", 1))
    study = load(tmp_path / "s.yaml")
    assert study.factors["help"]["more"] == {"n": 6, "chunk": 3}
    assert study.arms["eva"] == {"n": 6}


@pytest.mark.parametrize("text", ["a: " + "[" * 5000, "a: " + "[" * 900 + "]" * 900])
def test_a_file_that_is_nested_too_deeply_is_one_sentence(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"s\.yaml is nested too deeply; write it flatter"):
        load(tmp_path / "s.yaml")


def test_a_study_that_was_written_out_is_the_same(tmp_path):
    import yaml

    study = small(**TUNED)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")))
    assert load(tmp_path / "s.yaml") == study
    assert FIELDS["name"] == study.name
