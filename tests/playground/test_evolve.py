"""The evolver: what a child says it changed is what it changed."""

from collections import Counter

import pytest

from eva.parts.evolvers import PlaygroundEvolver
from eva.playground.domain import canonical, parse, parse_chat, render
from eva.playground.evolve import broadened, deepened, harder, make_evolver, other
from eva.playground.sets import banned, prompts
from eva.records import Message, Prompt, ScoredPrompt
from eva.seeds import rng


def scored(prompt):
    return ScoredPrompt(prompt=prompt, info=1.0, round=1, policy="theta")


def given(text):
    return scored(Prompt(messages=(Message(role="user", content=text),), by="test"))


def no_policy(prompts, n, *, sampling, seed):
    raise AssertionError("the rules ask no policy")


def children(parents, seed=1, **fields):
    evolve = make_evolver(PlaygroundEvolver(kind="playground", **fields))
    return evolve(parents, no_policy, seed=seed)


PARENTS = [scored(prompt) for prompt in prompts("x0", 64, seed=1)]


def explains(change, parent, child):
    """Whether `change` turns the parent's constraints into the child's."""
    if change.startswith("+ "):
        (new,) = parse(change[2:])
        return any((*parent[:i], new, *parent[i:]) == child for i in range(len(parent) + 1))
    before, after = change.split(" -> ")
    (old,) = parse(before)
    (new,) = parse(f"{old.word} {after}" if after.isdigit() else after)
    return any(
        parent[i] == old and (*parent[:i], new, *parent[i + 1 :]) == child
        for i in range(len(parent))
    )


def test_a_child_differs_from_its_parent_by_what_it_says():
    written = children(PARENTS)

    by_id = {parent.prompt.id: parse_chat(parent.prompt.messages) for parent in PARENTS}
    assert len(written) == 4 * len(PARENTS)
    assert [child.parent for child in written[::4]] == list(by_id)
    for child in written:
        constraints = parse_chat(child.messages)
        assert explains(child.change, by_id[child.parent], constraints), child
        assert child.by == "playground-rules"
        assert child.method == "in-depth" or " -> " in child.change


def test_the_directions_come_in_their_shares():
    written = children(PARENTS, children=40)

    methods = Counter(child.method for child in written)
    depth = [child for child in written if child.method == "in-depth"]
    added = sum(child.change.startswith("+ ") for child in depth)
    # 2560 children: four standard errors are 0.035.
    assert abs(methods["in-depth"] / len(written) - 0.75) < 0.035
    # An addition is also what remains where no value can be made harder, so 75 % is a lower bound.
    assert 0.75 - 0.04 < added / len(depth) < 0.95


@pytest.mark.parametrize(("share", "method"), [(1.0, "in-depth"), (0.0, "in-breadth")])
def test_one_direction_can_be_had_alone(share, method):
    assert {child.method for child in children(PARENTS, in_depth=share)} == {method}


def test_a_constraint_is_added_at_any_place():
    parent = parse("even has 3 up")
    draws = rng(1, "places")

    edits = [deepened(parent, draws) for _ in range(200)]

    places = {next((i for i in range(3) if parent[i] != edit.constraints[i]), 3) for edit in edits}
    assert places == {0, 1, 2, 3}
    assert all(edit.change.startswith("+ ") for edit in edits)  # no value of these can be harder


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("len 5", "len 6"),
        ("min 3", "min 4"),
        ("max 3", "max 2"),
        ("sum 2", "sum 3"),
        ("step 2", "step 1"),
        ("more 8", "more 9"),
        ("len 9", None),
        ("max 0", None),
        ("step 1", None),
        ("has 3", None),
        ("even", None),
    ],
)
def test_a_harder_value_asks_for_more(text, after):
    tightened = harder(parse(text)[0])

    assert (tightened and str(tightened)) == after


def test_a_full_prompt_is_made_harder_where_a_value_can_be_and_else_has_a_flaw():
    # Ten constraints: nothing can be added.
    tight = given("len 9 " + " ".join(f"no {v}" for v in range(9)))
    loose = given("len 8 " + " ".join(f"no {v}" for v in range(9)))

    assert {child.change for child in children([loose], in_depth=1.0)} == {"len 8 -> 9"}
    stuck = children([tight], in_depth=1.0, children=1)[0]
    assert stuck.flaw == "the parent has 10 constraints and none can be made harder"
    assert stuck.raw == tight.prompt.messages[0].content
    assert stuck.messages == ()


def test_a_full_prompt_can_still_be_broadened():
    parent = parse(" ".join(f"no {v}" for v in range(10)))

    edit = broadened(parent, rng(1, "broad"))

    assert len(edit.constraints) == 10
    assert explains(edit.change, parent, edit.constraints)


def test_what_is_added_is_not_there_already():
    parent = parse(" ".join(f"no {v}" for v in range(10)))
    draws = rng(1, "other")

    assert not {other(parent, draws) for _ in range(500)} & set(parent)


def test_a_parent_outside_the_language_has_a_child_with_a_flaw_and_its_text():
    written = children([given("write a poem")], children=2)

    assert len(written) == 2
    for child in written:
        assert child.flaw == (
            "the parent is no prompt of the playground: "
            "'write' is no word of the constraint language"
        )
        assert child.raw == "write a poem"


def test_a_child_that_asks_the_same_as_its_parent_has_a_flaw():
    # Making one of two "min 3" harder beside a "min 4" asks for min 3 and min 4 as before.
    written = children([given("min 3 min 4 min 3")], children=200, in_depth=1.0)

    same = [child for child in written if child.change == "min 3 -> 4"]
    assert same
    assert {child.flaw for child in same} == {"asks the same as its parent"}


def test_a_child_that_stands_in_a_held_out_set_has_a_flaw():
    # Parents one constraint short of a held-out prompt: some child in many completes it.
    held_out = prompts("eval_x0", 400, seed=0)
    two = [parse_chat(p.messages) for p in held_out if len(parse_chat(p.messages)) == 2]
    parents = [given(render(constraints[:1])) for constraints in two[:20]]

    written = children(parents, children=50)

    for child in written:
        assert child.flaw == banned(child.messages)
    assert any(child.flaw == "stands in the held-out set x0" for child in written)


def test_the_children_of_a_parent_do_not_depend_on_its_neighbours():
    alone = children(PARENTS[5:6], seed=3)

    assert alone == children(PARENTS, seed=3)[20:24]
    assert alone == children(PARENTS[::-1], seed=3)[-24:-20]
    assert alone != children(PARENTS[5:6], seed=4)


def test_a_chain_rewrites_the_last_child_without_a_flaw():
    written = children(PARENTS, chained=True, children=4)

    for start, parent in enumerate(PARENTS):
        source, constraints = parent.prompt.id, parse_chat(parent.prompt.messages)
        for child in written[4 * start : 4 * start + 4]:
            assert child.parent == source
            assert explains(child.change, constraints, parse_chat(child.messages))
            if child.flaw is None:
                source, constraints = child.id, parse_chat(child.messages)


def test_a_chain_grows_longer_than_independent_children():
    def longest(written):
        return max(len(parse_chat(child.messages)) for child in written)

    chained = children(PARENTS, chained=True, in_depth=1.0, children=8)
    independent = children(PARENTS, in_depth=1.0, children=8)

    assert longest(independent) == 4  # three constraints and one
    assert longest(chained) > 6
    assert canonical(parse_chat(chained[0].messages)) != canonical(parse_chat(chained[1].messages))
