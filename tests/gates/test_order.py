"""All gates together, as a round calls them."""

import pytest

pytest.importorskip("py3langid")

from eva.adapt import Asked
from eva.build import creators
from eva.gates.order import screens
from eva.parts.gates import Gates
from eva.parts.policies import HfPolicy
from eva.protocols import Around
from eva.records import Checkpoint, Response
from eva.stages import admit
from eva.yields import yields
from tests.gates.chats import child, prompt

QUESTION = (
    "How many bridges cross the river between the harbour and the old mill, and who built them?"
)
PARENT = prompt("Describe how a beaver builds a dam, and what the dam does to the river behind it.")
NEIGHBOUR = prompt("List five birds that winter in the north and say what each of them eats there.")
ELDER = prompt("Write the opening of a crime novel that is set in a bakery on a Monday morning.")
APART = {"hard": [prompt(QUESTION)]}
AROUND = Around({PARENT.id: PARENT}, (PARENT, NEIGHBOUR), (ELDER,))
GOOD = "Compare how beavers and engineers build dams; name two things that each does better."

FATES = [
    (GOOD, None),
    ("I'm sorry, but I can't rewrite this prompt.", "refusal"),
    ("Why so?", "words"),
    ("dam " * 80, "growth"),
    (PARENT.messages[0].content.replace("beaver", "badger"), "copy_of_parent"),
    ("Опиши, как бобр строит плотину и что она делает с рекой.", "language"),  # noqa: RUF001
    (QUESTION.replace("bridges", "ferries"), "contamination"),
    (NEIGHBOUR.messages[0].content.replace("five", "six"), "duplicates"),
    (ELDER.messages[0].content.upper(), "duplicates"),
    (GOOD.replace("two", "three"), "duplicates"),
    (GOOD, "repeat"),
]


def judged(part=None, fates=FATES):
    children = [child(text, parent=PARENT.id) for text, _ in fates]
    gates = screens(part or Gates(growth=1.5, words=(3, 90)), APART, None)
    return admit(children, AROUND, (), gates)


def test_each_child_meets_the_gate_that_is_meant_for_it():
    assert [c.gate for c in judged()] == [gate for _, gate in FATES]
    assert all((c.flaw is None) == (c.gate is None) for c in judged())


def test_the_yields_add_up():
    [row] = yields(judged())
    assert row.written == len(FATES) == row.born + sum(row.refused.values())
    assert row.refused["duplicates"] == 3
    assert row.born == 1


def test_gates_come_in_the_order_of_the_recipe_and_each_can_be_turned_off():
    names = [gate.name for gate in screens(Gates(), {}, None)]
    assert names == [name for name in Gates.model_fields if name != "answerable"]
    off = Gates(
        refusal=False, growth=None, copy_of_parent=None, language=False, contamination=None,
        duplicates=None,
    )  # fmt: skip
    assert [gate.name for gate in screens(off, APART, None)] == ["words"]


def test_a_judge_stands_last_and_is_asked_about_what_passed_the_rest():
    seen = []

    class Judge(Asked):
        def __call__(self, prompts, n, *, sampling, seed):
            seen.extend(prompts)
            return [[Response(text="Nonsense.\nVerdict: no")] for _ in prompts]

    by = HfPolicy(kind="hf", model="judge")
    judge = Judge("judge", None, Checkpoint(uri="judge", id="judge"))
    part = Gates.model_validate({"growth": 1.5, "answerable": {"by": by.model_dump()}})
    gates = screens(part, APART, judge)
    found = admit([child(text, parent=PARENT.id) for text, _ in FATES], AROUND, (), gates)
    assert gates[-1].name == "answerable"
    assert len(seen) == 1
    assert GOOD in seen[0].messages[0].content
    assert found[0].gate == "answerable"
    assert found[0].flaw == "the judge finds it unanswerable: Nonsense."


def test_verdicts_do_not_hang_on_other_children_but_for_duplicates_among_them():
    texts = [text for text, gate in FATES if gate not in ("repeat", "duplicates")]
    gates = screens(Gates(growth=1.5, words=(3, 90)), APART, None)
    together = admit([child(t, parent=PARENT.id) for t in texts], AROUND, (), gates)
    alone = [admit([child(t, parent=PARENT.id)], AROUND, (), gates)[0] for t in texts]
    assert together == alone
    backwards = admit([child(t, parent=PARENT.id) for t in reversed(texts)], AROUND, (), gates)
    assert backwards[::-1] == together


def test_a_recipe_has_its_held_out_sets_kept_apart(tmp_path):
    (tmp_path / "bench.jsonl").write_text('{"turns": "Tell a tale of two towns by a lake."}\n')
    part = Gates.model_validate(
        {
            "contamination": {
                "sets": {
                    "bench": {
                        "kind": "jsonl", "path": str(tmp_path / "bench.jsonl"), "column": "turns",
                    }
                }
            }
        }
    )  # fmt: skip
    gates = creators.screens(part, APART, None)
    children = [
        child("Tell a tale of two cities by a lake.", parent=PARENT.id),
        child(QUESTION.lower(), parent=PARENT.id),
    ]
    found = admit(children, AROUND, (), gates)
    assert [c.gate for c in found] == ["contamination", "contamination"]
    assert "of bench asks" in found[0].flaw
    assert "of hard asks" in found[1].flaw
