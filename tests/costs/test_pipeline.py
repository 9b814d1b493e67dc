"""The simulation behind docs/bench-pipeline.md, against schedules made by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "bench" / "_simulation.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("_simulation", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["_simulation"] = module
    spec.loader.exec_module(module)
    return module


def test_two_servers_share_a_queue(simulation):
    tasks = [simulation.Task("s", "a", seconds, ()) for seconds in (3.0, 1.0, 1.0, 4.0)]
    # One server works 0-3 and 3-..., the other 0-1, 1-2, 2-6.
    assert simulation.played(tasks, {"a": 2}) == [3.0, 1.0, 2.0, 6.0]


def test_a_task_waits_for_what_it_needs(simulation):
    # a: 0-2 and 2-4; b scores the first 2-5 and then the second 5-8.
    tasks = [
        simulation.Task("answer", "a", 2.0, ()),
        simulation.Task("reward", "b", 3.0, (0,)),
        simulation.Task("answer", "a", 2.0, ()),
        simulation.Task("reward", "b", 3.0, (2,)),
    ]
    assert simulation.played(tasks, {"a": 1, "b": 1}) == [2.0, 5.0, 4.0, 8.0]


def test_a_round_without_overlap_takes_the_sum_of_its_stages(simulation):
    seconds = {"answer": 1.0, "reward": 2.0, "select": 0.5, "learn": 3.0, "fixed": 7.0}
    one = simulation.Round(10, 3, seconds)
    servers = dict.fromkeys(("eva", "policy", "reward", "writer", "learner"), 1)
    alone = simulation.tasks_of(one, overlapping=False)
    # 7 + (10 + 8 answered) x (1 + 2) + 10 x 0.5 + 10 x 3
    assert max(simulation.played(alone, servers)) == pytest.approx(7 + 54 + 5 + 30)
    # Overlapping, the slower of answer and reward counts, after the first chunk of 3 was answered.
    both = simulation.tasks_of(one, overlapping=True)
    assert max(simulation.played(both, servers)) == pytest.approx(7 + 3 + 20 + 5 + 3 + 16 + 30)
    assert simulation.shares(both, servers)["reward"] == pytest.approx(36)
