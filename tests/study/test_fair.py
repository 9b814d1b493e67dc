"""Arms that cannot be compared are refused before anything is played."""

import pytest

from eva.errors import RecipeError
from eva.study import planned
from tests.study.small import FIELDS, TUNED, small

ARMS = {"static": {"creator": None}, "eva": {}}
SETS = {"easy": {"n": 4}, "hard": {"n": 4}}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"evaluate": {"temperature": 0.5}}, r"evaluate\.temperature is 0\.5 and 1\.0"),
        ({"evaluate": {"samples": 9}}, r"evaluate\.samples is 9 and 3"),
        ({"evaluate": {"sets": {"hard": {"low": 0.0}}}}, r"evaluate\.sets\.hard\.low is 0\.0"),
        ({"evaluate": {"monitor": {"reward": {"kind": "toy"}}}}, r"evaluate\.monitor"),
        ({"evaluate": None}, r"evaluate\.sets"),
        ({"sampling": {"max_tokens": 7}}, r"sampling\.max_tokens is 7"),
        (
            {"evaluate": {"reward": {"kind": "python", "call": "a:b"}}},
            r"evaluate\.reward\.kind is 'python' and 'toy'",
        ),
    ],
)
def test_an_arm_is_not_measured_otherwise_than_the_others(tmp_path, change, key):
    with pytest.raises(RecipeError, match=f"the arm 'eva' is measured otherwise .*: {key}"):
        planned(small(arms=ARMS | {"eva": change}), tmp_path, tmp_path)


def test_the_reward_of_training_measures_too_if_no_other_is_named(tmp_path):
    own = {"reward": {"kind": "python", "call": "a:b"}}
    change = FIELDS["change"] | {"evaluate": {"sets": SETS}}
    with pytest.raises(RecipeError, match=r"evaluate\.reward\.kind is 'python' and 'toy'"):
        planned(small(change=change, arms=ARMS | {"eva": own}), tmp_path, tmp_path)
    planned(small(arms=ARMS | {"eva": own}), tmp_path, tmp_path)


def test_a_setting_does_not_change_what_measures(tmp_path):
    tune = TUNED["tune"] | {"grid": {"evaluate.samples": [3, 4]}}
    with pytest.raises(RecipeError, match=r"'static' \(samples=4\) is measured otherwise"):
        planned(small(tune=tune), tmp_path, tmp_path)


def test_levels_measure_otherwise_only_where_they_are_not_pooled(tmp_path):
    factors = {"heat": {"a": {}, "b": {"evaluate": {"temperature": 0.5}}}}
    planned(small(factors=factors), tmp_path, tmp_path)
    with pytest.raises(RecipeError, match="'static' with heat b is measured otherwise"):
        planned(small(factors=factors, pool=["heat"]), tmp_path, tmp_path)


def test_how_often_is_measured_is_left_to_each_arm(tmp_path):
    planned(small(arms=ARMS | {"eva": {"evaluate": {"every": 2}}}), tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"arms": ARMS | {"again": {}}}, "the arm 'again' plays the same recipe as the arm 'eva'"),
        (  # the arm sets again what the level sets
            {"factors": {"n": {"a": {}, "b": {"n": 3}}}, "arms": ARMS | {"few": {"n": 2}}},
            "the arm 'few' with n b plays the same recipe as the arm 'few' with n a",
        ),
        (  # the setting sets again what the arm sets
            {"arms": ARMS | {"few": {"n": 2}}, "tune": TUNED["tune"]},
            r"the arm 'few' \(n=3\) plays the same recipe as the arm 'eva' \(n=3\)",
        ),
        (
            {"tune": TUNED["tune"] | {"grid": [{}, {"learner.lr": 1.0}]}},
            r"the arm 'static' \(lr=1.0\) plays the same recipe as the arm 'static'",
        ),
    ],
)
def test_two_cells_that_are_one_are_refused(tmp_path, keys, said):
    with pytest.raises(RecipeError, match=said):
        planned(small(**keys), tmp_path, tmp_path)


def test_levels_may_differ_in_their_grids_alone(tmp_path):
    factors = {"reach": {"low": {"grid": {"n": [3]}}, "high": {"grid": {"n": [6, 8]}}}}
    tune = TUNED["tune"] | {"over": ["reach"]}
    planned(small(factors=factors, tune=tune), tmp_path, tmp_path)
