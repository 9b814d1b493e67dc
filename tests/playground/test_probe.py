"""The probe tells prompts that can be answered from those that cannot."""

from pathlib import Path

import pytest

from eva import recipe
from eva.playground import probe
from eva.playground.domain import parse
from eva.playground.sets import tasks
from eva.records import Message, Prompt
from eva.start import run_recipe


@pytest.mark.parametrize(
    "text",
    ["even odd", "len 3 sum 3", "first 2 no 2", "up down distinct", "min 5 max 4", "len 2 pal"],
)
def test_what_contradicts_itself_is_not_solvable(text):
    assert not probe.is_solvable(parse(text))


def test_hard_prompts_that_can_be_answered_are_found():
    found = [probe.is_solvable(task.constraints) for task in tasks("eval_hard", 400, 0)]
    assert sum(found) >= 396  # 99 of 100, as the module says


def test_prompts_that_say_no_constraints_are_counted_and_measure_nothing():
    known, unknown = (
        Prompt(messages=(Message(role="user", content=text),)) for text in ("even last 6", "hello")
    )
    assert probe.asked([unknown, unknown]) == {"unread": 2.0}
    assert probe.asked([known, unknown]) == {"unread": 1.0, "constraints": 2.0, "solvable": 1.0}
    assert probe.asked([known]) == {"constraints": 2.0, "solvable": 1.0}


def test_the_lessons_of_each_round_are_probed(tmp_path):
    short = ["rounds=2", "prompts.n=16", "n=2", "learner.steps=1", "evaluate=null"]
    for _ in run_recipe(recipe.load("playground-eva", short), tmp_path, here=Path()):
        pass
    found = probe.probe(tmp_path)
    assert sorted(found) == [0, 1]
    assert found[0]["solvable"] == 1.0  # X_0 is made from hidden lists
    assert 1 <= found[0]["constraints"] <= 3
    assert found[1]["constraints"] > found[0]["constraints"]
