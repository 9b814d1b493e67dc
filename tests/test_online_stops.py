"""An online run that stops anywhere goes on with the same bytes, and samples nothing twice."""

import json
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from eva import build
from eva.errors import PlugInError
from eva.game import Game
from eva.records import Child
from tests.world import (
    contents,
    killed_at,
    online_recipe,
    play,
    played_online,
    said,
    stage,
)

STEPS, BATCH = 4, 4


@pytest.mark.parametrize(
    ("save_steps", "rounds", "steps"), [("1", 2, 2), ("3", 1, 4), ("null", 2, 2)]
)
def test_a_run_killed_at_any_write_goes_on_byte_for_byte(tmp_path, save_steps, rounds, steps):
    length = (f"rounds={rounds}", f"learner.steps={steps}", f"learner.save_steps={save_steps}")
    overrides = (*length, "learner.batch=3", "evaluate=null", "prompts.n=4", "n=2")
    played_online(tmp_path / "whole", *overrides)
    whole = contents(tmp_path / "whole")
    event = 1
    while killed_at(partial(played_online, tmp_path / f"run{event}", *overrides), event):
        played_online(tmp_path / f"run{event}", *overrides)
        assert contents(tmp_path / f"run{event}") == whole, f"killed at write {event}"
        event += 1
    # Two events a file: four mini-batches write at least two files each, a round ten more.
    assert event > 2 * (4 * 2 + 10)


def test_a_run_killed_again_and_again_arrives_all_the_same(tmp_path):
    played_online(tmp_path / "whole", "learner.save_steps=1")
    again = partial(played_online, tmp_path / "run", "learner.save_steps=1")
    for _ in range(60):
        if not killed_at(again, 7):
            break
    else:
        pytest.fail("the run makes no progress between kills")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


class Stop(Exception):
    """What ends an attempt in these tests."""


class Watched:
    """The toy trainee, whose policy is watched and which stops at a mini-batch."""

    def __init__(self, game: Game, stop_at: int | None = None):
        self.asked: list[int] = []
        self.resumed: list[int] = []
        self.stop_at = stop_at
        self.learner = game.learner.learner
        self.game = replace(game, learner=replace(game.learner, learner=self.open))

    @contextmanager
    def open(self, start, *, reference, out, seed, round):
        with self.learner(start, reference=reference, out=out, seed=seed, round=round) as trainee:
            assert reference.uri == "toy:0.0"
            self.resumed.append(trainee.step)
            learn = trainee.learn

            def watched(lessons):
                self.asked.append(trainee.step)
                if trainee.step == self.stop_at:
                    raise Stop("here")
                return learn(lessons)

            trainee.learn = watched
            yield trainee


def counting(game: Game) -> tuple[Game, list[int]]:
    """The game, and the number of prompts of each call of its reward."""
    calls: list[int] = []

    def reward(prompts, responses):
        calls.append(len(prompts))
        return game.reward(prompts, responses)

    return replace(game, reward=reward), calls


@pytest.mark.parametrize(("save_steps", "resumed"), [("2", 2), ("null", 0)])
def test_a_round_goes_on_from_its_snapshot_and_samples_nothing_twice(tmp_path, save_steps, resumed):
    made = build.game(
        online_recipe(f"learner.save_steps={save_steps}", "evaluate=null", "rounds=1"), tmp_path
    )
    watched, calls = counting(made)
    first = Watched(watched, stop_at=3)
    with pytest.raises(PlugInError, match="the learner raised Stop: here"):
        play(first.game, tmp_path / "run")
    assert calls == [BATCH] * 4  # mini-batches 0 to 3 were answered
    second = Watched(watched)
    play(second.game, tmp_path / "run")
    assert second.resumed == [resumed]
    assert second.asked == list(range(resumed, STEPS))
    assert calls == [BATCH] * 4
    play(made, tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_finished_round_does_not_open_the_learner_again(tmp_path):
    made = build.game(online_recipe(), tmp_path)
    play(made, tmp_path / "run")
    (tmp_path / "run/state.json").write_text(
        (tmp_path / "run/state.json").read_text().replace('"round": 2', '"round": 1')
    )
    last = Watched(made)
    play(last.game, tmp_path / "run")
    assert last.resumed == []


@pytest.mark.parametrize(
    ("notes", "sentence"),
    [
        (None, r"from mini-batch 2 without the notes that were kept there; .* not None"),
        ("{}", r"mini-batch 2 of the run with the notes of 0; expected what `keep` was given"),
        ("no notes", r"without the notes that were kept there; .* not 'no notes'"),
    ],
)
def test_a_learner_that_loses_its_notes_is_named(tmp_path, notes, sentence):
    made = build.game(online_recipe("learner.save_steps=2", "evaluate=null"), tmp_path)
    with pytest.raises(PlugInError):
        play(Watched(made, stop_at=2).game, tmp_path / "run")
    snapshot = tmp_path / "run/rounds/000/learn/snapshot.json"
    found = json.loads(snapshot.read_text())
    snapshot.write_text(json.dumps({**found, "notes": notes}))
    with pytest.raises(PlugInError, match=sentence):
        play(made, tmp_path / "run")


def test_a_mini_batch_without_any_reward_stops_the_run(tmp_path):
    made = build.game(online_recipe("evaluate=null"), tmp_path)
    mute = replace(
        made, reward=lambda prompts, responses: made.reward(prompts, responses) * float("nan")
    )
    with pytest.raises(PlugInError, match="NaN for all 16 responses of the mini-batch"):
        play(mute, tmp_path / "run")
    play(made, tmp_path / "run")


def test_show_sees_the_children_of_a_round_that_is_still_played(tmp_path):
    made = build.game(online_recipe("evaluate=null"), tmp_path)
    with pytest.raises(PlugInError):
        play(Watched(made, stop_at=3).game, tmp_path / "run")
    (tmp_path / "run/recipe.yaml").write_text("name: x\nrounds: 2\n")
    child = stage(tmp_path / "run", 0, "children/000001", Child)[0]
    assert child.parent in said("show", str(tmp_path / "run"), child.id)
    assert "stopped after the stage solved" in said("show", str(tmp_path / "run"))
