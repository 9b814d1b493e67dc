from hypothesis import given
from hypothesis import strategies as st

from eva.records import Child, Message
from eva.yields import UNNAMED, all_gates, refused_by, yields

CHAT = (Message(role="user", content="x"),)


def child(method="deepen", by="m", gate=None, is_flawed=None):
    flaw = "a reason" if (gate if is_flawed is None else is_flawed) else None
    return Child(parent="p", messages=CHAT, method=method, by=by, gate=gate, flaw=flaw)


def test_a_row_says_what_became_of_the_children_of_an_operator_and_writer():
    children = [
        child(), child(gate="refusal"), child(gate="duplicates"), child(gate="duplicates"),
        child("breadth"), child(by="other", gate="parse"),
    ]  # fmt: skip
    first, second, third = yields(children)
    assert (first.method, first.by, first.written, first.born) == ("deepen", "m", 4, 1)
    assert list(first.refused.items()) == [("duplicates", 2), ("refusal", 1)]
    assert first.share == 1 / 4
    assert (second.method, second.written, second.refused) == ("breadth", 1, {})
    assert (third.by, third.share) == ("other", 0.0)
    assert all_gates([first, second, third]) == ["duplicates", "parse", "refusal"]


def test_the_policy_is_one_writer_whichever_checkpoint_it_was():
    rows = yields([child(by="self abc"), child(by="self def"), child(by="selfish")])
    assert [(row.by, row.written) for row in rows] == [("self", 2), ("selfish", 1)]


def test_a_refused_child_without_a_gate_is_counted():
    assert refused_by([child(is_flawed=True), child()]) == {UNNAMED: 1}
    assert yields([]) == ()
    assert all_gates([]) == []


KINDS = st.builds(
    child,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["m", "self 1", "self 2"]),
    st.sampled_from([None, "parse", "repeat", "words"]),
)


@given(st.lists(KINDS, max_size=40))
def test_yields_add_up(children):
    rows = yields(children)
    assert sum(row.written for row in rows) == len(children)
    assert sum(row.born for row in rows) == sum(c.flaw is None for c in children)
    for row in rows:
        assert row.written == row.born + sum(row.refused.values())
        assert all(row.refused.values())
        assert 0 <= row.share <= 1
    total = sum((refused_by([c]) for c in children), refused_by([]))
    gates = all_gates(rows)
    assert {g: sum(row.refused.get(g, 0) for row in rows) for g in gates} == total
