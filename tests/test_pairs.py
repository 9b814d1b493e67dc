from collections.abc import Sequence

from eva.pairs import best_worst_pairs
from eva.records import Message, Prompt, Response, Rollout


def make_rollout(
    text: str, responses: Sequence[Response], rewards: Sequence[float | None]
) -> Rollout:
    prompt = Prompt(messages=(Message(role="user", content=text),))
    return Rollout(
        prompt=prompt,
        responses=tuple(responses),
        rewards=tuple(rewards),
        policy="theta",
        round=0,
    )


def answers(*texts: str) -> list[Response]:
    return [Response(text=text) for text in texts]


def test_a_pair_is_the_best_against_the_worst() -> None:
    rollout = make_rollout("x", answers("low", "high", "none", "mid"), [0.25, 2.0, None, 1.0])
    (pair,) = best_worst_pairs([rollout]).pairs
    assert (pair.chosen.text, pair.rejected.text, pair.margin) == ("high", "low", 1.75)
    assert pair.prompt == rollout.prompt


def test_ties_and_groups_with_one_reward_make_no_pair_and_are_counted() -> None:
    groups = [
        make_rollout("tie", answers("p", "q"), [1.0, 1.0]),
        make_rollout("one", answers("p", "q"), [None, 1.0]),
        make_rollout("none", answers("p", "q"), [None, None]),
        make_rollout("good", answers("p", "q"), [0.0, 1.0]),
    ]
    lesson = best_worst_pairs(groups)
    assert [pair.prompt.messages[0].content for pair in lesson.pairs] == ["good"]
    assert (lesson.ties, lesson.missing) == (1, 2)


def test_groups_may_differ_in_size_down_to_one_response() -> None:
    groups = [
        make_rollout("three", answers("p", "q", "r"), [0.0, 1.0, 2.0]),
        make_rollout("one", answers("p"), [1.0]),
    ]
    lesson = best_worst_pairs(groups)
    assert (len(lesson.pairs), lesson.ties, lesson.missing) == (1, 0, 1)
    assert best_worst_pairs(groups[1:]).missing == 1


def test_no_rollouts_make_no_pairs() -> None:
    assert best_worst_pairs([]).pairs == []
