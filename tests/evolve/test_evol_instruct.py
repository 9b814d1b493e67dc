"""A language model rewrites prompts: which operator, of what, and what is recorded."""

from collections import Counter

import pytest

from eva.contracts import checked_children
from eva.evolve.evol_instruct import ANY_OTHER
from eva.evolve.operators import SHIPPED
from eva.parts.evolvers import IN_BREADTH, IN_DEPTH, PAPER
from eva.protocols import Releasable
from eva.records import SELF, Response, Sampling
from eva.seeds import rng
from eva.stages import rewritten
from tests.evolve.world import (
    Scribe,
    asked,
    by_id,
    evol_instruct,
    longer,
    no_policy,
    old,
    parents,
    scored,
    tagged,
    turns,
)

NO_OTHER = dict.fromkeys([name for name in (*IN_DEPTH, *IN_BREADTH) if name != "mix"], 1.0)


def children(given, answer=by_id, seed=1, **fields):
    return evol_instruct(asked(Scribe(answer)), **fields)(given, no_policy, seed=seed)


def test_a_child_records_who_wrote_it_how_and_what():
    sampling = Sampling(temperature=0.5, top_p=0.8, max_tokens=99)
    scribe = Scribe(lambda prompt, seed: f"Of course!\n{tagged('Explain topic 7 to a child.')}")

    evolve = evol_instruct(
        asked(scribe, "http gpt"), operators={"deepen": 1}, children=1, sampling=sampling
    )
    [child] = evolve([scored("Explain topic 7.", data={"answer": "7"})], no_policy, seed=1)

    assert child.messages == turns("Explain topic 7 to a child.")
    assert child.parent == scored("Explain topic 7.", data={"answer": "7"}).prompt.id
    assert (child.by, child.method, child.change) == ("http gpt", "deepen", "3 -> 6 words")
    assert child.raw == "Of course!\n<new_prompt>\nExplain topic 7 to a child.\n</new_prompt>"
    assert child.sampling == sampling
    assert child.data == {}  # the answer of the parent is not that of the child
    assert [one[1] for one in scribe.calls] == [sampling]


def test_a_flawed_child_keeps_what_was_put_out():
    sound, flawed = children(
        [scored("A b?")],
        lambda prompt, seed: "I cannot." if prompt.data["child"] else tagged("A b c?"),
        children=2,
        chained=False,
    )

    assert sound.flaw is None
    assert flawed.flaw == "no <new_prompt> in the output"
    assert (flawed.raw, flawed.messages, flawed.parent) == ("I cannot.", (), sound.parent)


def test_the_policy_itself_writes_without_another_writer():
    scribe = Scribe(by_id)
    evolve = evol_instruct(None)

    written = rewritten(parents(2), scribe, evolve, seed=1, policy_id="theta-3")

    assert {child.by for child in evolve(parents(2), scribe, seed=1)} == {SELF}
    assert {child.by for child in written} == {"self theta-3"}


def test_a_writer_is_released_with_its_evolver():
    closed = []
    writer = asked(Scribe(by_id))
    writer._stack.callback(lambda: closed.append(True))
    evolve = evol_instruct(writer)

    assert isinstance(evolve, Releasable)
    evolve.release()
    evol_instruct(None).release()  # there is nothing to release in self-play

    assert closed == [True]


def test_in_a_chain_each_child_rewrites_the_one_before():
    written = children(parents(3), longer, children=3)

    texts = [child.messages[0].content for child in written]
    assert texts == [f"Explain topic {i} to me.{' More!' * k}" for i in range(3) for k in (1, 2, 3)]
    for start, parent in zip(range(0, 9, 3), parents(3), strict=True):
        ids = [parent.prompt.id, *(child.id for child in written[start : start + 3])]
        assert [child.parent for child in written[start : start + 3]] == ids[:-1]


def test_a_chain_asks_once_for_each_step_and_independent_children_once_in_all():
    for chained, sizes in ((True, [5, 5, 5, 5]), (False, [20])):
        scribe = Scribe(longer)
        evol_instruct(asked(scribe), chained=chained)(parents(5), no_policy, seed=1)
        assert [len(prompts) for prompts, _, _ in scribe.calls] == sizes


def test_a_chain_goes_on_from_its_last_sound_text():
    def second_fails(prompt, seed):
        return "Sorry." if prompt.data["child"] == 1 else longer(prompt, seed)

    first, failed, third = children(parents(1), second_fails, children=3)

    assert failed.flaw
    assert (failed.parent, third.parent) == (first.id, first.id)
    assert third.messages[0].content == "Explain topic 0 to me. More! More!"
    checked_children([first, failed, third], [parents(1)[0].prompt.id])


def test_a_chain_whose_first_link_fails_goes_on_from_the_parent():
    def first_fails(prompt, seed):
        return "Sorry." if prompt.data["child"] == 0 else longer(prompt, seed)

    failed, second = children(parents(1), first_fails, children=2)

    assert failed.parent == second.parent == parents(1)[0].prompt.id


def test_independent_children_all_rewrite_the_parent():
    written = children(parents(2), longer, children=3, chained=False)

    assert [child.parent for child in written] == [p.prompt.id for p in parents(2) for _ in "abc"]
    assert {child.messages[0].content for child in written} == {
        "Explain topic 0 to me. More!",
        "Explain topic 1 to me. More!",
    }


@pytest.mark.parametrize("chained", [True, False])
def test_the_same_request_is_drawn_anew_for_each_child(chained):
    # One operator, and a chain that never moves: only the randomness can tell the children apart.
    scribe = Scribe(lambda prompt, seed: f"Sorry. {rng(seed, prompt.id).random()}")

    written = evol_instruct(asked(scribe), operators={"deepen": 1}, chained=chained)(
        parents(1), no_policy, seed=1
    )

    assert len(set(scribe.requests)) == 1
    assert len({child.raw for child in written}) == 4


@pytest.mark.parametrize("chained", [True, False])
def test_children_do_not_depend_on_how_parents_are_cut(chained):
    fields = {"operators": NO_OTHER, "chained": chained}
    given = parents(7)

    whole = children(given, **fields)

    assert whole == children(given[:3], **fields) + children(given[3:], **fields)
    turned = children(given[::-1], **fields)
    assert whole == [child for i in range(24, -1, -4) for child in turned[i : i + 4]]
    assert whole != children(given, seed=2, **fields)


def test_the_first_children_do_not_depend_on_how_many_follow():
    few, many = (children(parents(3), operators=NO_OTHER, children=n) for n in (2, 5))

    assert few == [child for start in (0, 5, 10) for child in many[start : start + 2]]


def test_operators_come_by_their_weights():
    weights = {"deepen": 3.0, "breadth": 1.0, "expand": 0.0}

    drawn = Counter(child.method for child in children(parents(500), operators=weights))

    assert drawn["expand"] == 0
    # 2000 draws of a share of 3/4: four standard errors are 0.039.
    assert abs(drawn["deepen"] / 2000 - 0.75) < 0.039


def test_the_five_of_the_released_code_are_drawn_evenly_unless_said():
    drawn = Counter(child.method for child in children(parents(500)))

    assert set(drawn) == set(PAPER)
    # 2000 draws of a share of 1/5: four standard errors are 0.036.
    assert all(abs(count / 2000 - 0.2) < 0.036 for count in drawn.values())


def test_a_request_is_the_operator_with_the_prompt_and_the_form():
    scribe = Scribe(by_id)

    [child] = evol_instruct(asked(scribe), operators=NO_OTHER, children=1)(
        [scored("Say {it}.")], no_policy, seed=1
    )

    operator, rules, form = (
        (SHIPPED / f"{name}.md").read_text("utf-8").strip()
        for name in (child.method, "_in_depth", "_form")
    )
    if child.method in IN_BREADTH:
        rules = (SHIPPED / "_in_breadth.md").read_text("utf-8").strip()
    whole = operator.replace("{in_depth}", rules).replace("{in_breadth}", rules)
    assert scribe.requests == [whole.replace("{prompt}", "Say {it}.") + "\n\n" + form]


def test_the_last_user_turn_is_rewritten_and_what_stands_before_it_is_kept():
    scribe = Scribe(longer)
    parent = scored("Hi.", "Hello, how can I help?", "Tell me a joke.", system="Be {kind}.")

    first, second = evol_instruct(asked(scribe), children=2)([parent], no_policy, seed=1)

    before = parent.prompt.messages[:-1]
    assert first.messages == (*before, *turns("Tell me a joke. More!"))
    assert second.messages == (*before, *turns("Tell me a joke. More! More!"))
    spoken = "System: Be {kind}.\n\nUser: Hi.\n\nAssistant: Hello, how can I help?"
    assert all(f"<conversation>\n{spoken}\n</conversation>" in one for one in scribe.requests)
    assert all(len(prompt.messages) == 1 for prompts, *_ in scribe.calls for prompt in prompts)


def test_a_chat_that_does_not_end_with_the_user_has_a_flaw_and_is_not_asked():
    scribe = Scribe(longer)
    given = [scored("Hi.", "Hello."), scored("Why?"), scored(system="Be kind.")]

    written = evol_instruct(asked(scribe), children=1)(given, no_policy, seed=1)

    assert [child.flaw for child in written] == [
        "the parent ends with a turn of the assistant, not of the user",
        None,
        "the parent ends with a turn of the system, not of the user",
    ]
    assert [child.sampling is None for child in written] == [True, False, True]
    assert len(scribe.requests) == 1


def test_mix_shows_another_parent_never_its_own():
    scribe = Scribe(by_id)
    given = parents(6)

    written = evol_instruct(asked(scribe), operators={"mix": 1}, chained=False)(
        given, no_policy, seed=1
    )

    texts = {parent.prompt.id: parent.prompt.messages[0].content for parent in given}
    seen = set()
    for child, request in zip(written, scribe.requests, strict=True):
        other = child.change.split(",")[0].removeprefix("with ")
        seen.add((child.parent, other))
        assert other != child.parent
        assert f"<second_prompt>\n{texts[other]}\n</second_prompt>" in request
    assert len(seen) > 12  # 24 draws among 30 pairs: 16.7 distinct ones are expected


def test_mix_of_a_single_parent_leaves_the_other_domain_to_the_writer():
    scribe = Scribe(by_id)

    written = evol_instruct(asked(scribe), operators={"mix": 1})(parents(1), no_policy, seed=1)

    assert all(ANY_OTHER in request for request in scribe.requests)
    assert not any(child.change.startswith("with") for child in written)


def test_a_copy_of_the_second_prompt_is_a_flaw():
    def second(prompt, seed):
        text = prompt.messages[0].content.split("<second_prompt>\n")[1]
        return tagged(text.split("\n</second_prompt>")[0])

    written = children(parents(3), second, operators={"mix": 1})

    assert {child.flaw for child in written} == {"it repeats a prompt that the request showed"}


def follow_up(policy, answer, given, **fields):
    evolve = evol_instruct(asked(Scribe(answer)), turns="follow_up", **fields)
    return evolve(given, policy, seed=1)


def test_a_follow_up_stands_after_an_answer_of_the_policy():
    policy = Scribe(lambda prompt, seed: f"Answer to: {prompt.messages[-1].content}")
    scribe = Scribe(lambda prompt, seed: tagged(f"And then, {prompt.data['child']}?"))
    sampling = Sampling(temperature=0.3, top_p=1.0, max_tokens=50)

    evolve = evol_instruct(asked(scribe), turns="follow_up", children=2, sampling=sampling)
    first, second = evolve([scored("Why?", system="Be brief.")], policy, seed=1)

    chat = turns("Why?", "Answer to: Why?", "And then, 0?", system="Be brief.")
    assert first.messages == chat
    assert second.messages == (
        *chat,
        *turns("", "Answer to: And then, 0?", "And then, 1?")[1:],
    )
    assert second.parent == first.id
    assert (first.method, first.change) == ("follow_up", "after an answer")
    assert "User: Why?\n\nAssistant: Answer to: Why?\n</conversation>" in scribe.requests[0]
    assert {one[1] for one in policy.calls} == {sampling}


def test_independent_follow_ups_follow_answers_of_their_own():
    policy = Scribe(lambda prompt, seed: f"Answer {rng(seed, prompt.id).random()}")

    written = follow_up(policy, by_id, parents(2), children=3, chained=False)

    assert len(policy.calls) == 1
    assert len({child.messages[1].content for child in written}) == 6
    assert {len(child.messages) for child in written} == {3}


@pytest.mark.parametrize(
    ("answer", "flaw"),
    [
        (
            Response(text="I th", finish="length"),
            "the policy's answer, which the turn would follow, was cut at the token limit",
        ),
        (
            Response(text="", finish="error", error="503"),
            "the policy gave no answer that a turn could follow: 503",
        ),
        (Response(text=" "), "the policy's answer, which the turn would follow, is empty"),
    ],
)
def test_an_answer_that_no_turn_can_follow_is_a_flaw(answer, flaw):
    policy = Scribe(lambda prompt, seed: answer if prompt.data["child"] == 0 else "Because.")

    failed, sound = follow_up(policy, by_id, parents(1), children=2)

    assert (failed.flaw, failed.sampling, failed.raw) == (flaw, None, None)
    assert sound.flaw is None
    assert sound.parent == parents(1)[0].prompt.id


def test_a_follow_up_that_repeats_the_user_is_a_flaw():
    policy = Scribe(lambda prompt, seed: "Because.")

    [child] = follow_up(
        policy, lambda p, s: tagged("Why?"), [scored("Why?", "So.", "How?")], children=1
    )

    assert child.flaw == "it repeats a prompt that the request showed"


def test_a_server_that_refuses_one_request_costs_one_child():
    def refuses(prompt, seed):
        if "topic 1" in old(prompt):
            return Response(text="", finish="error", error="400: too long")
        return by_id(prompt, seed)

    written = children(parents(3), refuses, children=1)

    assert [child.flaw for child in written] == [
        None,
        "the writer gave no answer: 400: too long",
        None,
    ]


def test_without_parents_nobody_is_asked():
    assert evol_instruct(None)([], no_policy, seed=1) == []
