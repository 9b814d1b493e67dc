"""Screens judge what nothing refused before; models that are only asked are opened and released."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from eva import build, stages
from eva.adapt import Asked
from eva.contracts import checked_children
from eva.errors import BackEndError, PlugInError
from eva.protocols import Around
from eva.records import SELF, Checkpoint, Child, Message, Prompt, Response, Sampling, ScoredPrompt
from eva.stages import admit, answer, rewritten
from tests.world import play, recipe, stage


def prompt(text: str) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),))


def child(text: str, parent: Prompt | Child, flaw: str | None = None) -> Child:
    messages = (Message(role="user", content=text),)
    return Child(parent=parent.id, messages=messages, method="m", by="test", flaw=flaw)


def toy(*overrides: str, creator: dict | None = None, **changes):
    """A small toy game with some of its pieces exchanged."""
    game = build.game(recipe(*overrides), Path())
    if creator is not None:
        changes["creator"] = replace(game.creator, **creator)
    return replace(game, **changes)


class Named:
    """A screen that refuses texts that hold a word, and remembers what it was shown."""

    def __init__(self, name: str, word: str) -> None:
        self.name, self.word = name, word
        self.shown: list[tuple[list[str], Around]] = []

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        texts = [child.messages[-1].content for child in children]
        self.shown.append((texts, around))
        return [f"it says {self.word}" if self.word in text else None for text in texts]


def test_the_first_that_refuses_is_recorded_and_later_ones_do_not_see_the_child():
    x = prompt("x")
    written = [
        child("a", x),
        child("red", x),
        child("blue", x),
        child("red blue", x),
        child("a", x),
        child("x", x),
        child("none", x, flaw="no marker"),
        child("unfit", x),
    ]
    red, blue = Named("red", "red"), Named("blue", "blue")
    gate = lambda messages: "too long" if messages[-1].content == "unfit" else None  # noqa: E731
    judged = admit(written, Around({x.id: x}, [x]), [gate], [red, blue])
    assert [(c.gate, c.flaw) for c in judged] == [
        (None, None),
        ("red", "it says red"),
        ("blue", "it says blue"),
        ("red", "it says red"),
        ("repeat", "it repeats another child of this round"),
        ("repeat", "it is already in the pool"),
        ("parse", "no marker"),
        ("unfit", "too long"),
    ]
    assert red.shown[0][0] == ["a", "red", "blue", "red blue"]
    assert blue.shown[0][0] == ["a", "blue"]


def test_a_screen_finds_the_parent_of_a_child_in_a_chain():
    x, screen = prompt("x"), Named("s", "never")
    first = child("first", x)
    admit([first, child("second", first)], Around({x.id: x}, [x]), (), [screen])
    around = screen.shown[0][1]
    assert around.parents[first.id].messages == first.messages
    assert around.parents[x.id] == x
    assert around.pool == [x]


def test_a_screen_without_a_verdict_for_each_child_is_one_sentence():
    class Short(Named):
        def __call__(self, children, around):
            return []

    with pytest.raises(PlugInError, match="gate short returned 0 verdicts for 1 children"):
        admit([child("a", prompt("x"))], Around(), (), [Short("short", "")])


def test_screens_of_the_creator_judge_in_rounds_and_see_what_was_born_before(tmp_path):
    screen = Named("odd", "")
    screen.word = "3."
    play(toy("rounds=4", creator={"screens": (screen,)}), tmp_path / "run")
    born = [p for t in (1, 2) for p in stage(tmp_path / "run", t, "born", Prompt)]
    assert list(screen.shown[-1][1].history) == born
    assert any(texts for texts, _ in screen.shown)


def test_the_policy_itself_is_named_as_the_writer():
    x = prompt("x")
    parent = ScoredPrompt(prompt=x, info=1.0, round=0, policy="theta")

    def evolver(parents, policy, *, seed):
        mine = child("a", x).model_copy(update={"by": SELF})
        return [mine, child("b", x)]

    found = rewritten([parent], None, evolver, 0, "abc+3")
    assert [c.by for c in found] == ["self abc+3", "test"]
    assert checked_children(found, [x.id]) == found


def test_an_answer_that_is_an_error_has_no_reward():
    broken = Response(text="", finish="error", error="refused by the server")

    def policy(prompts, n, *, sampling, seed):
        return [[Response(text="fine"), broken] for _ in prompts]

    _, rewards_P_G = answer(
        [prompt("x")], policy, lambda p, r: np.ones((1, 2)), n=2, sampling=Sampling(), seed=0
    )
    np.testing.assert_array_equal(rewards_P_G, [[1.0, np.nan]])


@pytest.mark.parametrize("fields", [{"finish": "error"}, {"error": "why"}])
def test_an_error_has_a_reason_and_a_reason_an_error(fields):
    with pytest.raises(ValidationError, match="expected a reason exactly where finish is 'error'"):
        Response(text="", **fields)


# ---------------------------------------------------------------- models that are only asked


class Door:
    """Counts how often a model is opened and closed."""

    def __init__(self) -> None:
        self.opened = self.closed = 0

    @contextmanager
    def open_policy(self, checkpoint: Checkpoint) -> Iterator[object]:
        self.opened += 1

        def policy(prompts, n, *, sampling, seed):
            return [[Response(text=checkpoint.uri)] * n for _ in prompts]

        yield policy
        self.closed += 1


def test_a_model_is_opened_when_first_asked_and_again_after_its_release():
    door = Door()
    asked = Asked("hf judge", door.open_policy, Checkpoint(uri="here", id="judge"))
    asked.release()
    assert (door.opened, door.closed) == (0, 0)
    for time in (1, 2):
        for _ in range(2):
            found = asked([prompt("x")], 2, sampling=Sampling(), seed=0)
            assert [[r.text for r in group] for group in found] == [["here", "here"]]
        assert (door.opened, door.closed) == (time, time - 1)
        asked.release()
        assert (door.opened, door.closed) == (time, time)


def test_rewards_evolvers_and_screens_are_released_before_the_learner_starts(tmp_path):
    told: list[str] = []

    class Held:
        def __init__(self, name, call):
            self.name, self.call = name, call

        def __call__(self, *args, **kwargs):
            return self.call(*args, **kwargs)

        def release(self):
            told.append(self.name)

    plain = toy("rounds=2")
    screen = Held("screen", lambda children, around: [None] * len(children))
    held = {"evolver": Held("evolver", plain.creator.evolver), "screens": (screen,)}

    def learner(start, lessons, *, out, seed):
        told.append("learner")
        return plain.learner(start, lessons, out=out, seed=seed)

    reward = Held("reward", plain.reward)
    play(toy("rounds=2", creator=held, reward=reward, learner=learner), tmp_path / "run")
    held_back = ["reward", "evolver", "screen"]
    assert told == [*held_back, "learner", *held_back, "learner", *held_back]
    assert stages.release(toy("creator=null", "evaluate=null")) is None


def test_one_that_cannot_be_released_does_not_keep_the_others():
    told: list[str] = []

    class Stuck:
        def __call__(self, prompts, responses):
            return np.zeros((len(prompts), len(responses[0])))

        def release(self):
            told.append("stuck")
            raise OSError("no")

    class Fine(Stuck):
        def release(self):
            told.append("fine")

    game = toy(reward=Fine())
    game = replace(game, evaluation=replace(game.evaluation, reward=Stuck()))
    with pytest.raises(OSError, match="no"):
        stages.release(game)
    assert sorted(told) == ["fine", "stuck"]


def test_a_policy_that_answers_nothing_is_named_not_the_reward(tmp_path):
    broken = Response(text="", finish="error", error="HTTP 400: too long")

    @contextmanager
    def open_policy(checkpoint):
        yield lambda prompts, n, *, sampling, seed: [[broken] * n for _ in prompts]

    game = toy("evaluate=null", open_policy=open_policy)
    with pytest.raises(BackEndError, match=r"answered none of 3 prompts .*HTTP 400: too long"):
        play(game, tmp_path / "run")
