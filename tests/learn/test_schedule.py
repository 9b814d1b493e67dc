import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from eva import seeds
from eva.config import DpoLearner
from eva.learn.schedule import learning_rate, planned_steps


@pytest.fixture
def make(make_config: Callable[..., DpoLearner]) -> Callable[..., DpoLearner]:
    return make_config


def test_steps_cycle_through_named_permutations(make: Callable[..., DpoLearner]) -> None:
    plan = planned_steps(7, make(steps=4, batch=5), seed=9)
    passes = [seeds.rng(9, "pass", k).permutation(7).tolist() for k in range(3)]
    assert [len(step) for step in plan] == [5, 5, 5, 5]
    assert np.concatenate(plan).tolist() == [i for order in passes for i in order][:20]


def test_epochs_visit_every_pair_equally_often(make: Callable[..., DpoLearner]) -> None:
    plan = planned_steps(7, make(steps=None, epochs=2, batch=5), seed=9)
    assert [len(step) for step in plan] == [5, 5, 4]
    assert Counter(np.concatenate(plan).tolist()) == dict.fromkeys(range(7), 2)


@pytest.mark.parametrize(("epochs", "visits"), [(0.5, 4), (1.5, 10), (0.01, 1)])
def test_a_part_of_an_epoch_is_rounded_to_pairs(
    make: Callable[..., DpoLearner], epochs: float, visits: int
) -> None:
    # round(0.5 * 7) = round(3.5) = 4, round(10.5) = 10 (to even), and at least one pair.
    plan = planned_steps(7, make(steps=None, epochs=epochs, batch=5), seed=9)
    assert sum(map(len, plan)) == visits


def test_no_pairs_make_no_steps(make: Callable[..., DpoLearner]) -> None:
    assert planned_steps(0, make(), seed=9) == []


def test_another_seed_gives_another_order(make: Callable[..., DpoLearner]) -> None:
    one, other = (np.concatenate(planned_steps(50, make(), seed=s)).tolist() for s in (1, 2))
    assert one != other


# lr = 8, floor = 1/4, 2 warm-up steps of 6, so t = 0, 1/4, 1/2, 3/4 after it.
COSINE = [8 * (0.25 + 0.75 * (1 + math.cos(math.pi * t)) / 2) for t in (0, 0.25, 0.5, 0.75)]


@pytest.mark.parametrize(
    ("schedule", "after"),
    [("constant", [8, 8, 8, 8]), ("linear", [8, 6.5, 5, 3.5]), ("cosine", COSINE)],
)
@pytest.mark.parametrize("warmup", [2, 0.3])  # 0.3 of 6 steps is 1.8, rounded up
def test_learning_rate_rises_then_falls(
    make: Callable[..., DpoLearner], schedule: str, after: list[float], warmup: float
) -> None:
    config = make(lr=8, floor=0.25, warmup=warmup, schedule=schedule)
    rates = [learning_rate(k, 6, config) for k in range(6)]
    assert rates == pytest.approx([4, 8, *after], abs=1e-12)


def test_no_warmup_begins_at_the_peak(make: Callable[..., DpoLearner]) -> None:
    assert learning_rate(0, 6, make(lr=8, warmup=0)) == 8


def test_a_warmup_longer_than_the_run_never_divides_by_zero(
    make: Callable[..., DpoLearner],
) -> None:
    config = make(lr=8, warmup=100)
    assert [learning_rate(k, 2, config) for k in range(2)] == [4, 8]
