"""The creator beside a learner that samples for itself: what waits, is remembered, was seen."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from eva.errors import PlugInError
from eva.formulas.informativeness import a_avg
from eva.formulas.phases import evolved_share
from eva.formulas.selection import greedy
from eva.game import StreamCreator
from eva.records import Child, Message, Prompt, Response, Rollout, ScoredPrompt
from eva.stream import PromptStream, StreamState


def prompt(text: str) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),))


def scored(text: str, info: float | None) -> ScoredPrompt:
    return ScoredPrompt(prompt=prompt(text), info=info, round=0, policy="theta_0")


def rollout(of: Prompt, *rewards: float | None) -> Rollout:
    responses = tuple(Response(text="y") for _ in rewards)
    return Rollout(prompt=of, responses=responses, rewards=rewards, policy="theta_0+0", round=0)


def doubled(parents, policy, *, seed):
    """Two children of each parent; the seed makes them new each time."""
    return [
        Child(
            parent=p.prompt.id,
            messages=(Message(role="user", content=f"{p.prompt.messages[0].content}/{seed}/{i}"),),
            method="double",
            by="test",
        )
        for p in parents
        for i in range(2)
    ]


def policy(prompts, n, *, sampling, seed):
    raise AssertionError("nobody asks it")


GIVEN = [prompt(str(i)) for i in range(10)]
SHARE = partial(evolved_share, warmup=0.0, mixup=0.0, evolved=0.5, bootstrap=0.5)


def creator(**more) -> StreamCreator:
    found = {"info": a_avg, "select": greedy, "evolver": doubled, "share": SHARE, "keep": 0.5}
    return StreamCreator(**(found | more))


def stream(made_by: StreamCreator | None, **more) -> PromptStream:
    return PromptStream(GIVEN, made_by, **({"batch": 4, "planned": 8, "seed": 1} | more))


def texts(prompts) -> list[str]:
    return [p.messages[0].content for p in prompts]


def held(of: PromptStream) -> list[str]:
    return texts(known.scored.prompt for known in of.state.buffer)


# ---------------------------------------------------------------- given prompts


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 10])
def test_given_prompts_are_visited_equally_often_and_never_twice_in_a_mini_batch(batch):
    one = stream(None, batch=batch)
    visits: Counter[str] = Counter()
    for _ in range(50):
        drawn = texts(one.next_batch())
        assert len(set(drawn)) == len(drawn) == batch
        visits.update(drawn)
        counts = [visits[text] for text in texts(GIVEN)]
        assert max(counts) - min(counts) <= 1


def test_each_pass_has_an_order_of_its_own_and_each_seed_others():
    one, other = stream(None, batch=10), stream(None, batch=10, seed=2)
    orders = [texts(one.next_batch()) for _ in range(3)] + [texts(other.next_batch())]
    assert len({tuple(order) for order in orders}) == 4


def test_other_given_prompts_begin_a_pass_anew():
    one = stream(None)
    one.next_batch()
    same = PromptStream(GIVEN, None, batch=4, planned=8, seed=1, state=one.state)
    others = [prompt(f"new {i}") for i in range(4)]
    new = PromptStream(others, None, batch=4, planned=8, seed=1, state=one.state)
    assert same.state == one.state
    assert sorted(texts(new.next_batch())) == sorted(texts(others))
    assert new.state.step == 2


def test_a_mini_batch_larger_than_the_given_prompts_is_refused():
    with pytest.raises(ValueError, match="of 11 holds each prompt at most once, and 10 are given"):
        stream(None, batch=11)


# ---------------------------------------------------------------- the buffer


def test_beyond_its_size_the_least_informative_is_forgotten_and_of_equals_the_oldest():
    one = stream(creator(buffer=3))
    for text, info in (("a", 1.0), ("b", 0.5), ("c", 1.0), ("d", 1.0)):
        one.next_batch()
        one.remember([scored(text, info)])
    assert held(one) == ["a", "c", "d"]
    one.next_batch()
    one.remember([scored("e", 1.0)])
    assert held(one) == ["c", "d", "e"]
    one.next_batch()
    one.remember([scored("f", 0.1)])
    assert held(one) == ["c", "d", "e"]


def test_a_newer_score_takes_the_place_of_the_older_one():
    one = stream(creator())
    for info in (0.5, 0.25):
        one.next_batch()
        one.remember([scored("a", info), scored("b", 0.75)])
    assert [(m.scored.info, m.step) for m in one.state.buffer] == [(0.25, 2), (0.75, 2)]


def test_a_score_older_than_the_greatest_age_is_forgotten():
    one = stream(creator(max_age=2))
    one.next_batch()
    one.remember([scored("a", 1.0)])
    one.next_batch()
    one.next_batch()
    one.remember([scored("b", 0.1)])  # a is two mini-batches old
    assert held(one) == ["a", "b"]
    one.next_batch()
    one.remember([])
    assert held(one) == ["b"]


def test_missing_rewards_never_enter_the_buffer_and_do_not_displace_a_score():
    one = stream(creator())
    one.next_batch()
    found = one.observe([rollout(prompt("a"), None, 1.0), rollout(prompt("b"), 0.0, 1.0)])
    assert [s.info for s in found] == [None, 0.5]  # best 1 minus mean 1/2
    assert held(one) == ["b"]
    one.next_batch()
    one.observe([rollout(prompt("b"), None, None)])
    assert [(m.scored.info, m.step) for m in one.state.buffer] == [(0.5, 1)]


# ---------------------------------------------------------------- children


def test_parents_are_drawn_by_informativeness_for_what_the_next_mini_batch_takes():
    one = stream(creator())
    one.next_batch()
    one.remember([scored("a", 0.1), scored("b", 0.9), scored("c", 0.5)])
    # Half of 4 are evolved ones, and keep is a half of those: one parent, the greediest.
    assert one.wanted() == 2
    assert texts(p.prompt for p in one.parents()) == ["b"]


def test_children_come_before_given_prompts_the_oldest_first():
    one = stream(creator())
    one.next_batch()
    one.remember([scored("a", 0.9)])
    children = one.evolve(policy, born=3)
    batch = one.next_batch()
    assert [p.id for p in batch[:2]] == [child.id for child in children]
    assert {p.born for p in batch} == {3, 0}
    assert one.state.counts.evolved == 2
    assert one.state.waiting == ()


def test_given_prompts_fill_what_children_cannot():
    one = stream(creator())
    assert one.wanted() == 2
    assert {p.method for p in one.next_batch()} == {"given"}


def test_nothing_is_evolved_while_the_next_mini_batch_takes_none():
    share = partial(evolved_share, warmup=0.5, mixup=0.0, evolved=0.5, bootstrap=0.5)
    one = stream(creator(share=share))
    wrote = []
    for _ in range(5):
        one.next_batch()
        one.remember([scored("a", 0.9)])
        wrote.append(len(one.evolve(policy)))
    # Of 8 mini-batches 0 to 3 are warm-up; the children of number 4 are written after number 3.
    assert wrote == [0, 0, 0, 2, 2]


def test_an_empty_buffer_has_no_parents_and_no_creator_no_children():
    one = stream(creator())
    one.next_batch()
    assert one.evolve(policy) == []
    assert stream(None).evolve(policy) == []


def test_a_child_that_was_seen_before_is_refused_with_the_reason():
    def again(parents, policy, *, seed):
        return [
            Child(parent=parents[0].prompt.id, messages=prompt(text).messages, method="m", by="t")
            for text in ("new", "new", "0")
        ]

    one = stream(creator(evolver=again))
    flaws = []
    for _ in range(2):
        one.next_batch()
        one.remember([scored("a", 0.9)])
        flaws.append([child.flaw for child in one.evolve(policy)])
    assert flaws[0] == [None, "it repeats another child of this round", "it is already in the pool"]
    assert flaws[1] == [
        "it repeats an earlier child of this run",
        "it repeats an earlier child of this run",
        "it is already in the pool",
    ]


def test_gates_judge_children():
    one = stream(creator(), gates=[lambda messages: "too long"])
    one.next_batch()
    one.remember([scored("a", 0.9)])
    assert {child.flaw for child in one.evolve(policy)} == {"too long"}
    assert one.state.waiting == ()


def test_at_most_a_mini_batch_of_children_waits_and_the_oldest_are_dropped():
    def many(parents, policy, *, seed):
        return [c for _ in range(3) for c in doubled(parents, policy, seed=seed + _)]

    one = stream(creator(evolver=many))
    one.next_batch()
    one.remember([scored("a", 0.9)])
    children = one.evolve(policy)
    assert len(children) == 6
    assert [w.prompt.id for w in one.state.waiting] == [child.id for child in children[2:]]
    assert one.state.counts.dropped == 2


def test_ages_and_waits_are_counted_in_mini_batches():
    one = stream(creator(keep=1.0))
    one.next_batch()
    one.remember([scored("a", 0.9), scored("b", 0.8)])
    one.next_batch()
    one.next_batch()
    assert len(one.evolve(policy)) == 4  # of two parents, scored two mini-batches ago
    one.next_batch()  # takes two that waited for no other mini-batch
    one.next_batch()  # takes two that waited for one
    counts = one.state.counts
    assert (counts.parents, counts.age, counts.evolved, counts.wait) == (2, 4, 4, 2)


def test_an_evolver_that_breaks_its_contract_is_named():
    one = stream(creator(evolver=lambda parents, policy, *, seed: []))
    one.next_batch()
    one.remember([scored("a", 0.9)])
    with pytest.raises(PlugInError, match="the evolver returned no children for 1 parents"):
        one.evolve(policy)


# ---------------------------------------------------------------- going on


def lived(one: PromptStream, steps: int) -> list[list[str]]:
    """Batches of a stream whose prompts are the more informative the longer their text."""
    batches = []
    for _ in range(steps):
        batch = one.next_batch()
        batches.append([p.id for p in batch])
        one.observe([rollout(p, 0.0, float(len(texts([p])[0]))) for p in batch])
        one.evolve(policy)
    return batches


def test_a_state_goes_through_json_byte_for_byte():
    one = stream(creator(buffer=5))
    lived(one, 4)
    text = one.state.model_dump_json()
    assert one.state.buffer
    assert one.state.seen
    assert StreamState.model_validate_json(text).model_dump_json() == text
    assert StreamState.model_validate_json(text) == one.state


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_stream_goes_on_from_its_state_as_if_it_had_never_stopped(cut):
    whole = stream(creator(buffer=5))
    batches = lived(whole, 8)
    first = stream(creator(buffer=5))
    lived(first, cut)
    text = first.state.model_dump_json()
    rest = stream(creator(buffer=5), state=StreamState.model_validate_json(text))
    assert lived(rest, 8 - cut) == batches[cut:]
    assert rest.state == whole.state


def test_a_stream_that_outlives_its_plan_bootstraps_on():
    one = stream(creator(), planned=2)
    lived(one, 4)
    assert one.wanted() == 2
    assert np.isfinite([m.scored.info for m in one.state.buffer]).all()
