import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from eva import seeds
from eva.learn.schedule import learning_rate, planned_steps
from eva.parts.learners import Dpo


@pytest.fixture
def make(make_config: Callable[..., Dpo]) -> Callable[..., Dpo]:
    return make_config


def test_steps_cycle_through_named_permutations(make: Callable[..., Dpo]) -> None:
    plan = planned_steps([1] * 7, make(steps=4, batch=5), seed=9)
    passes = [seeds.rng(9, "pass", k).permutation(7).tolist() for k in range(3)]
    assert [len(step) for step in plan] == [5, 5, 5, 5]
    assert np.concatenate(plan).tolist() == [i for order in passes for i in order][:20]


def test_epochs_visit_every_pair_equally_often(make: Callable[..., Dpo]) -> None:
    plan = planned_steps([1] * 7, make(steps=None, epochs=2, batch=5), seed=9)
    assert [len(step) for step in plan] == [5, 5, 4]
    assert Counter(np.concatenate(plan).tolist()) == dict.fromkeys(range(7), 2)


@pytest.mark.parametrize(("epochs", "visits"), [(0.5, 4), (1.5, 10), (0.01, 1)])
def test_a_part_of_an_epoch_is_rounded_to_pairs(
    make: Callable[..., Dpo], epochs: float, visits: int
) -> None:
    # round(0.5 * 7) = round(3.5) = 4, round(10.5) = 10 (to even), and at least one pair.
    plan = planned_steps([1] * 7, make(steps=None, epochs=epochs, batch=5), seed=9)
    assert sum(map(len, plan)) == visits


def test_a_step_can_be_cut_by_tokens(make: Callable[..., Dpo]) -> None:
    # In the order of the first pass, pairs fill a step as long as it holds at most 10 tokens; the
    # pair of 12 has a step of its own.
    tokens = [3, 12, 4, 2, 6]
    order = seeds.rng(9, "pass", 0).permutation(5).tolist()
    expected: list[list[int]] = [[]]
    for i in order:
        if expected[-1] and sum(tokens[j] for j in expected[-1]) + tokens[i] > 10:
            expected.append([])
        expected[-1].append(i)
    plan = planned_steps(tokens, make(steps=None, epochs=1, batch_tokens=10), seed=9)
    assert [step.tolist() for step in plan] == expected
    assert len(planned_steps(tokens, make(steps=2, batch_tokens=10), seed=9)) == 2


def test_no_pairs_make_no_steps(make: Callable[..., Dpo]) -> None:
    assert planned_steps([], make(), seed=9) == []


def test_another_seed_gives_another_order(make: Callable[..., Dpo]) -> None:
    one, other = (np.concatenate(planned_steps([1] * 50, make(), seed=s)).tolist() for s in (1, 2))
    assert one != other


# lr = 8, floor = 1/4, 2 warm-up steps of 6, so t = 0, 1/4, 1/2, 3/4 after it.
COSINE = [8 * (0.25 + 0.75 * (1 + math.cos(math.pi * t)) / 2) for t in (0, 0.25, 0.5, 0.75)]


@pytest.mark.parametrize(
    ("schedule", "after"),
    [("constant", [8, 8, 8, 8]), ("linear", [8, 6.5, 5, 3.5]), ("cosine", COSINE)],
)
@pytest.mark.parametrize("warmup", [2, 0.3])  # 0.3 of 6 steps is 1.8, rounded up
def test_learning_rate_rises_then_falls(
    make: Callable[..., Dpo], schedule: str, after: list[float], warmup: float
) -> None:
    config = make(lr=8, floor=0.25, warmup=warmup, schedule=schedule)
    rates = [learning_rate(k, 6, config) for k in range(6)]
    assert rates == pytest.approx([4, 8, *after], abs=1e-12)


def test_no_warmup_begins_at_the_peak(make: Callable[..., Dpo]) -> None:
    assert learning_rate(0, 6, make(lr=8, warmup=0)) == 8


def test_a_warmup_longer_than_the_run_never_divides_by_zero(
    make: Callable[..., Dpo],
) -> None:
    config = make(lr=8, warmup=100)
    assert [learning_rate(k, 2, config) for k in range(2)] == [4, 8]
