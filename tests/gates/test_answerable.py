"""The judge of answerable prompts: what it is asked, how it is read, and that it is let go."""

import logging
from contextlib import contextmanager

import pytest

from eva.adapt import Asked
from eva.errors import RecipeError
from eva.gates.answerable import Answerable, rubric, verdict
from eva.parts.gates import Answerable as Part
from eva.parts.policies import HfPolicy
from eva.protocols import Around, Releasable
from eva.records import Checkpoint, Response, Sampling
from tests.gates.chats import child

JUDGE = Checkpoint(uri="judge", id="judge")
BY = HfPolicy(kind="hf", model="judge")


class World:
    """A judge that finds what names a file unanswerable; it counts how often it is open."""

    def __init__(self):
        self.opened = self.closed = 0
        self.seen = []

    @contextmanager
    def __call__(self, checkpoint):
        self.opened += 1
        yield self.policy
        self.closed += 1

    def policy(self, prompts, n, *, sampling, seed):
        self.seen.append((prompts, n, sampling, seed))
        return [[self.answer(p.messages[0].content)] for p in prompts]

    def answer(self, text):
        if "boom" in text:
            return Response(text="", finish="error", error="the server refused it")
        if "mumble" in text:
            return Response(text="Who can say.")
        says = "no" if "attached" in text else "yes"
        return Response(
            text=f"It {'needs a file' if says == 'no' else 'is fine'}.\nVerdict: {says}"
        )


@pytest.fixture
def world():
    return World()


def gate(world, **fields):
    return Answerable(Part(by=BY, **fields), Asked("judge", world, JUDGE))


def test_the_judge_refuses_with_its_reason(world):
    children = [child("Summarise the attached file."), child("Why is the sky blue?")]
    assert gate(world)(children, Around()) == [
        "the judge finds it unanswerable: It needs a file.", None
    ]  # fmt: skip


def test_without_a_verdict_a_child_passes_and_is_counted(world, caplog):
    children = [child("mumble"), child("boom"), child("Why is the sky blue?")]
    with caplog.at_level(logging.WARNING):
        assert gate(world)(children, Around()) == [None, None, None]
    assert "2 of 3 prompts have no verdict and pass" in caplog.text
    assert "the last line is 'Who can say.'" in caplog.text


def test_the_prompt_stands_in_the_rubric_as_it_is(world, tmp_path):
    (tmp_path / "r.md").write_text("{{judge}} {prompt} {other}")
    asked = gate(world, rubric=str(tmp_path / "r.md"), sampling=Sampling(max_tokens=7))
    asked([child("What does {prompt} mean in {x}?"), child("a", "b", "c")], Around())
    [(prompts, n, sampling, _)] = world.seen
    assert prompts[0].messages[0].content == "{{judge}} What does {prompt} mean in {x}? {other}"
    assert prompts[1].messages[0].content == "{{judge}} user: a\n\nassistant: b\n\nuser: c {other}"
    assert (n, sampling.max_tokens) == (1, 7)


def test_the_same_children_are_asked_with_the_same_seed(world):
    one = gate(world)
    one([child("a"), child("b")], Around())
    one([child("b")], Around())
    assert world.seen[0][3] == world.seen[1][3]
    assert world.seen[0][0][1].id == world.seen[1][0][0].id


def test_the_judge_is_opened_when_it_is_asked_and_released(world):
    one = gate(world)
    assert one([], Around()) == []
    assert world.opened == 0
    one([child("a")], Around())
    assert isinstance(one, Releasable)
    one.release()
    assert (world.opened, world.closed) == (1, 1)


def test_the_rubric_that_ships_asks_for_reason_and_verdict():
    text = rubric("answerable")
    assert text.count("{prompt}") == 1
    assert verdict(text.rstrip().rpartition("or\n")[2])[0] is False


def test_a_rubric_that_is_not_there_or_has_no_place_for_the_prompt_is_one_sentence(tmp_path):
    (tmp_path / "r.md").write_text("Is it good?")
    with pytest.raises(RecipeError, match="there is no file nowhere"):
        rubric("nowhere")
    with pytest.raises(RecipeError, match="there is no file"):
        rubric("../rubrics/answerable")
    with pytest.raises(RecipeError, match=r"has no \{prompt\}"):
        rubric(str(tmp_path / "r.md"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Fine.\nVerdict: yes", True),
        ("Fine.\n\n**Verdict: Yes.**\n\n", True),
        ("VERDICT - NO", False),
        ("Bad.\n`Verdict: no`", False),
        ("Verdict: yes\nI am sure.", None),
        ("Verdict: yes or no", None),
        ("Verdict: maybe", None),
        ("yes", None),
        ("", None),
    ],
)
def test_only_the_last_line_is_the_verdict(text, says):
    assert verdict(text)[0] is says
