"""Groups: shapes, blocks, and missing rewards."""

import numpy as np
import pytest

from eva.formulas import groups
from eva.formulas.groups import checked, over_groups
from eva.formulas.informativeness import a_min, avg

nan = np.nan


@pytest.mark.parametrize("shape", [(), (3,), (3, 1), (3, 0), (2, 3, 4)])
def test_a_wrong_shape_is_refused_in_one_sentence(shape):
    with pytest.raises(ValueError, match=r"rewards have shape .*; expected \[P, G\] with G >= 2"):
        checked(np.zeros(shape))


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_an_infinite_reward_is_refused_with_its_prompt(infinite):
    rewards_P_G = np.array([[0.0, 1.0, nan], [0.0, 1.0, infinite], [infinite, 0.0, 0.0]])
    with pytest.raises(ValueError, match="prompt 1 has an infinite reward"):
        checked(rewards_P_G)


def test_whole_numbers_and_single_precision_become_float64():
    assert checked(np.array([[1, 2]], dtype=np.int32)).dtype == np.float64
    assert checked(np.array([[1, 2]], dtype=np.float32)).dtype == np.float64


def test_the_rewards_that_came_in_stay_as_they_were():
    rewards_P_G = np.array([[3.0, nan, 1.0]])
    a_min(rewards_P_G)
    np.testing.assert_array_equal(rewards_P_G, [[3.0, nan, 1.0]])


def test_no_prompts_give_no_scores():
    assert a_min(np.empty((0, 6))).shape == (0,)


def test_a_formula_sees_what_is_there_of_each_group_in_rising_order():
    # given groups with 3, 2, 1 and 0 rewards
    rewards_P_G = np.array([[2.0, 3.0, 1.0], [9.0, nan, 4.0], [nan, 7.0, nan], [nan, nan, nan]])
    seen = []

    def formula(r_P_n):
        seen.extend(r_P_n.tolist())
        return r_P_n[:, 0]

    # when scored
    info_P = over_groups(formula, rewards_P_G)

    # then the groups of two and more were seen, sorted, and the others have no score
    assert sorted(seen) == [[1.0, 2.0, 3.0], [4.0, 9.0]]
    np.testing.assert_array_equal(info_P, [1.0, 4.0, nan, nan])


def test_a_score_does_not_depend_on_the_block_it_falls_into(monkeypatch):
    # given nine responses, enough for sums that could be taken in several orders
    rewards_P_G = np.random.default_rng(1).normal(size=(50, 9))
    rewards_P_G[::7, 2] = nan
    whole_P = avg(rewards_P_G)

    # when blocks hold 7 prompts, so that the last one holds a single prompt
    monkeypatch.setattr(groups, "BLOCK", 7)

    # then no bit changes
    np.testing.assert_array_equal(avg(rewards_P_G), whole_P)
    np.testing.assert_array_equal(avg(rewards_P_G[-1:]), whole_P[-1:])


def test_a_score_beyond_the_largest_float_is_refused():
    with pytest.raises(ValueError, match="exceeds the largest float; divide all rewards"):
        a_min(np.array([[1.5e308, -1.5e308]]))  # 3e308 > 1.8e308
