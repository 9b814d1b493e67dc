"""From rewards to lessons: what each learner is told, at the edges of what rewards can be."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from eva.errors import PlugInError
from eva.formulas.advantages import loo_advantages
from eva.learn.objectives import Objective, Taught, _leave_one_out, objective
from eva.parts.learners import LearnerPart
from eva.records import Message, Prompt, Response, Rollout

EVERY = ("dpo", "ipo", "sppo", "simpo", "orpo", "rloo", "grpo", "online_dpo")
PAIRS = tuple(kind for kind in EVERY if kind not in ("rloo", "grpo"))


def aim(kind: str, **choices: object) -> Objective:
    part: Any = TypeAdapter(LearnerPart).validate_python({"kind": kind, **choices})
    return objective(part, max_tokens=8)


def rolled(*rewards: float | None) -> Rollout:
    """Responses named by their place in the group."""
    return Rollout(
        prompt=Prompt(messages=(Message(role="user", content=str(rewards)),)),
        responses=tuple(Response(text=str(j), tokens=(j,)) for j in range(len(rewards))),
        rewards=rewards,
        policy="p",
        round=0,
    )


def places(taught: Taught) -> list[list[int]]:
    return [[int(y.text) for y in lesson.responses] for lesson in taught.lessons]


def signals(kind: str, *rewards: float | None, **choices: object) -> tuple[float, ...]:
    (lesson,) = aim(kind, **choices).taught([rolled(*rewards)]).lessons
    return lesson.signals


@pytest.mark.parametrize("kind", EVERY)
def test_no_rollouts_are_no_lessons(kind: str) -> None:
    assert aim(kind).taught([]) == Taught([], 0, 0)


@pytest.mark.parametrize("kind", EVERY)
def test_ties_and_missing_rewards_are_counted(kind: str) -> None:
    given = [rolled(1, 1, 1), rolled(None, 2, None), rolled(0, None, 1), rolled(None, None, None)]
    taught = aim(kind).taught(given)
    assert (taught.ties, taught.missing) == (1, 2)
    # Pairs need a difference; whole groups need two rewards, and ties of them say nothing.
    assert places(taught) == ([[2, 0]] if kind in PAIRS else [[0, 1, 2], [0, 2]])


@pytest.mark.parametrize("kind", PAIRS)
def test_a_binary_reward_makes_a_pair_of_the_first_of_each(kind: str) -> None:
    assert places(aim(kind).taught([rolled(0, 1, 1, 0)])) == [[1, 0]]


@pytest.mark.parametrize("kind", EVERY)
def test_huge_rewards_give_finite_signals(kind: str) -> None:
    assert all(map(math.isfinite, signals(kind, 1e100, -1e100, 0.0)))


def test_win_probabilities_of_sppo_come_from_where_the_recipe_says() -> None:
    # 4 beats 1, 1 and 0: sigmoid(1.5), sigmoid(1.5), sigmoid(2) at scale 2.
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    best = (2 * sigmoid(1.5) + sigmoid(2.0)) / 3
    worst = (2 * sigmoid(-0.5) + sigmoid(-2.0)) / 3
    assert signals("sppo", 4, 1, 1, 0, scale=2.0) == pytest.approx((best, worst))
    assert signals("sppo", 4, 1, 1, 0, labels="hard") == (1.0, 0.0)
    # Two share the first place: each beats two of three others and ties with one.
    assert signals("sppo", 1, 1, 0, 0, labels="ranks") == pytest.approx((2.5 / 3, 0.5 / 3))
    assert signals("sppo", 0.7, 0.2, 0.4, labels="rewards") == (0.7, 0.2)


def test_two_responses_have_mirrored_win_probabilities() -> None:
    chosen, rejected = signals("sppo", 0.3, 0.9)
    assert chosen + rejected == pytest.approx(1.0)
    assert chosen == pytest.approx(1 / (1 + math.exp(-0.6)))


def test_rewards_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(PlugInError, match=r"returned 1\.5, which is no win probability.*bradley"):
        signals("sppo", 0.5, 1.5, labels="rewards")


def test_advantages_leave_a_missing_reward_out() -> None:
    # mean of the others: 1 - (0 + 2)/2, 0 - (1 + 2)/2, 2 - (1 + 0)/2
    assert signals("rloo", 1, None, 0, 2) == pytest.approx((0.0, -1.5, 1.5))
    # mean 1, sample deviation 1
    assert signals("grpo", 1, None, 0, 2) == pytest.approx((0.0, -1.0, 1.0))
    assert signals("grpo", 1, None, 0, 2, scaled=False) == pytest.approx((0.0, -1.0, 1.0))
    assert signals("rloo", 3, 1) == (2.0, -2.0)


def test_a_tie_among_groups_has_advantages_of_zero() -> None:
    assert signals("rloo", 5, 5, 5) == signals("grpo", 5, 5, 5) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "kl", "reads"),
    [("rloo", 0.0, False), ("rloo", 0.1, True), ("grpo", 0.0, False), ("grpo", 0.1, True)],
)
def test_a_penalty_needs_a_reference_and_teaches_even_where_rewards_tie(
    kind: str, kl: float, reads: bool
) -> None:
    found = aim(kind, kl=kl)
    assert (found.needs_reference, found.skips_ties) == (reads, not reads)


def test_only_losses_with_log_ratios_need_a_reference() -> None:
    assert [kind for kind in PAIRS if not aim(kind).needs_reference] == ["simpo", "orpo"]


def test_the_penalty_in_the_reward_is_its_leave_one_out_advantage() -> None:
    values = np.array([[0.3, -1.0, 2.0, 0.5], [4.0, 4.0, 0.0, 1.0]])
    expected = loo_advantages(values).ravel()
    group_B = torch.tensor([0] * 4 + [1] * 4)
    found = _leave_one_out(torch.from_numpy(values).ravel(), group_B)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_groups_of_different_sizes_are_left_out_of_their_own_means() -> None:
    groups: Sequence[Sequence[float]] = [[1.0, 5.0], [2.0, 0.0, 7.0]]
    expected = np.concatenate([loo_advantages(np.array([group]))[0] for group in groups])
    flat = torch.tensor([value for group in groups for value in group])
    found = _leave_one_out(flat, torch.tensor([0, 0, 1, 1, 1]))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
