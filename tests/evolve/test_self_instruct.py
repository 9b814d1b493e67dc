"""A language model writes prompts from scratch, after examples."""

import re

import pytest

from eva.errors import RecipeError
from eva.protocols import Releasable
from eva.records import SELF
from tests.evolve.world import (
    Scribe,
    asked,
    by_id,
    no_policy,
    parents,
    scored,
    self_instruct,
    tagged,
    turns,
)


def examples(request):
    return re.findall(r"<example_prompt>\n(.*?)\n</example_prompt>", request, re.DOTALL)


def test_a_request_shows_the_parent_and_others_in_random_order():
    scribe = Scribe(by_id)
    given = parents(12)

    written = self_instruct(asked(scribe), examples=4, children=3)(given, no_policy, seed=1)

    assert len(scribe.calls) == 1
    own = [parent.prompt.messages[0].content for parent in given for _ in range(3)]
    shown = [examples(request) for request in scribe.requests]
    assert all(text in texts for text, texts in zip(own, shown, strict=True))
    assert all(len(set(texts)) == 4 for texts in shown)
    assert {texts.index(text) for text, texts in zip(own, shown, strict=True)} == {0, 1, 2, 3}
    assert len({tuple(sorted(texts)) for texts in shown}) > 30  # 36 draws, hardly any twice
    assert [child.parent for child in written] == [p.prompt.id for p in given for _ in range(3)]


def test_a_child_records_who_wrote_it_how_and_what():
    scribe = Scribe(lambda prompt, seed: f"Well. {tagged('Name a colour.')}")

    evolve = self_instruct(asked(scribe, "http gpt"), children=1)
    [child] = evolve([scored("Say it.", system="Be kind.", data={"a": 1})], no_policy, seed=1)

    assert child.messages == turns("Name a colour.", system="Be kind.")
    assert (child.by, child.method) == ("http gpt", "self_instruct")
    assert child.change == "after 1 example"
    assert child.raw == "Well. <new_prompt>\nName a colour.\n</new_prompt>"
    assert child.sampling == evolve._part.sampling
    assert child.data == {}


def test_few_parents_are_few_examples():
    for count in (1, 2, 3):
        scribe = Scribe(by_id)
        self_instruct(asked(scribe), examples=5)(parents(count), no_policy, seed=1)
        assert {len(examples(request)) for request in scribe.requests} == {count}


def test_a_copy_of_an_example_is_a_flaw():
    def copies(prompt, seed):
        return tagged(examples(prompt.messages[0].content)[-1])

    written = self_instruct(asked(Scribe(copies)))(parents(5), no_policy, seed=1)

    assert {child.flaw for child in written} == {"it repeats a prompt that the request showed"}


def test_of_a_conversation_its_beginning_is_shown_and_none_of_it_kept():
    scribe = Scribe(by_id)

    [child] = self_instruct(asked(scribe), children=1)(
        [scored("Hi there.", "Hello.", "Why?")], no_policy, seed=1
    )

    assert examples(scribe.requests[0]) == ["Hi there."]
    assert len(child.messages) == 1


def test_a_parent_without_a_user_turn_is_left_out_of_the_examples():
    scribe = Scribe(by_id)
    silent = scored(system="Be kind.")

    alone = self_instruct(asked(scribe), children=1)([silent], no_policy, seed=1)
    beside = self_instruct(asked(scribe), children=1)([silent, *parents(1)], no_policy, seed=1)

    assert alone[0].flaw == "neither the parent nor another one has a turn of the user"
    assert [child.flaw for child in beside] == [None, None]


def test_the_same_parents_and_seed_give_the_same_children():
    def children(given, seed):
        return self_instruct(asked(Scribe(by_id)))(given, no_policy, seed=seed)

    assert children(parents(5), 1) == children(parents(5), 1)
    assert children(parents(5), 1) != children(parents(5), 2)


def test_the_policy_itself_writes_without_another_writer():
    written = self_instruct(None)(parents(2), Scribe(by_id), seed=1)

    assert {child.by for child in written} == {SELF}


def test_a_writer_is_released_with_its_evolver():
    closed = []
    writer = asked(Scribe(by_id))
    writer._stack.callback(lambda: closed.append(True))
    evolve = self_instruct(writer)

    assert isinstance(evolve, Releasable)
    evolve.release()
    self_instruct(None).release()

    assert closed == [True]


def test_an_own_template_is_a_text_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("More like these:\n{examples}\nGo.")
    scribe = Scribe(by_id)

    self_instruct(asked(scribe), template=str(path), children=1)(parents(1), no_policy, seed=1)

    [request] = scribe.requests
    assert request.startswith("More like these:\n<example_prompt>\nExplain topic 0 to me.\n</exam")
    assert "</new_prompt>" in request
    path.write_text("Nothing is shown.")
    with pytest.raises(RecipeError, match=r"mine\.txt has no \{examples\}"):
        self_instruct(None, template=str(path))
