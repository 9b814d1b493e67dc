"""Tasks by witness: always solvable, distributed as their mix says."""

from collections import Counter

import numpy as np
import pytest

from eva.playground.domain import MOST_DIGITS, WORDS, canonical, score
from eva.playground.tasks import (
    BROAD,
    CORPUS,
    HARD,
    NOISE,
    SHAPES,
    X0,
    draw_demonstration,
    draw_task,
    draw_witness,
    edited,
    pick,
    weighted,
)
from eva.seeds import rng


@pytest.mark.parametrize("mix", [X0, HARD, CORPUS, BROAD], ids=["x0", "hard", "corpus", "broad"])
def test_a_task_is_met_by_its_witness_and_uses_no_word_twice(mix):
    draws = rng(1, "tasks")

    for _ in range(500):
        constraints, witness = draw_task(mix, draws)
        assert score(constraints, witness) == 1.0
        assert len({c.word for c in constraints}) == len(constraints)
        assert len(witness) in mix.lengths


@pytest.mark.parametrize("mix", [X0, HARD, CORPUS, BROAD], ids=["x0", "hard", "corpus", "broad"])
def test_the_number_of_constraints_has_the_probabilities_of_the_mix(mix):
    draws = rng(2, "tasks")
    total = 4000

    counts = Counter(len(draw_task(mix, draws).constraints) for _ in range(total))

    for number, share in mix.counts.items():
        # Four standard errors of a binomial share.
        assert abs(counts[number] / total - share) < 4 * np.sqrt(share * (1 - share) / total)


def test_the_initial_prompts_have_a_long_tail_of_words_and_the_hard_ones_have_none():
    def words(mix):
        draws = rng(3, "tasks")
        tasks = [draw_task(mix, draws) for _ in range(1000)]
        return Counter(c.word for task in tasks for c in task.constraints)

    easy, hard = words(X0), words(HARD)

    assert set(easy) == set(hard) == set(WORDS)
    assert easy["len"] > 10 * easy["step"]
    assert hard["len"] < 5 * hard["step"]


def test_every_shape_of_a_hidden_list_has_its_property():
    holds = {
        "sorted": lambda y: WORDS["up"].holds(y, 0) or WORDS["down"].holds(y, 0),
        "palindrome": lambda y: WORDS["pal"].holds(y, 0),
        "even": lambda y: WORDS["even"].holds(y, 0),
        "odd": lambda y: WORDS["odd"].holds(y, 0),
        "distinct": lambda y: WORDS["distinct"].holds(y, 0),
        "walk": lambda y: WORDS["step"].holds(y, 2),
        "free": lambda y: True,
    }
    draws = rng(4, "lists")

    witnesses = [draw_witness(range(1, 11), draws) for _ in range(2000)]

    assert set(holds) == set(SHAPES)
    assert {len(y) for y in witnesses} == set(range(1, 11))
    assert {d for y in witnesses for d in y} == set(range(10))
    for shape, hold in holds.items():
        # One list in seven is drawn in this shape; 200 is five standard errors below.
        assert sum(hold(y) for y in witnesses) > 200, shape


def test_a_choice_has_its_weight():
    draws = rng(5, "choice")

    counts = Counter(weighted("abc", [1.0, 1.0, 4.0], draws) for _ in range(2000))
    even = Counter(pick("ab", draws) for _ in range(2000))

    assert counts["b"] == 0
    assert abs(counts["a"] / 2000 - 0.25) < 0.04
    assert abs(even["a"] / 2000 - 0.5) < 0.05


def test_the_said_share_of_demonstrations_is_edited():
    total = 4000

    edits = 0
    for i in range(total):
        constraints, y = draw_demonstration(rng(6, i))
        task = draw_task(CORPUS, rng(6, i))  # the same draw before the edits
        assert constraints == task.constraints
        edits += y != task.witness

    # Four standard errors are 0.031; about one edit in fifty leaves the list as it was.
    assert abs(edits / total - NOISE) < 0.04


def test_an_edit_changes_one_place_and_keeps_an_answer_an_answer():
    draws = rng(7, "edits")

    ones = {len(edited((5,), draws)) for _ in range(50)}
    full = {len(edited(tuple(range(10)), draws)) for _ in range(50)}
    some = {edited((1, 2), draws) for _ in range(500)}

    assert ones == {1, 2}  # replaced or inserted, never deleted
    assert full == {9, MOST_DIGITS}  # replaced or deleted, never inserted
    assert (1,) in some
    assert (2,) in some
    assert (1, 9) in some
    assert (7, 1, 2) in some


def test_tasks_that_differ_in_order_alone_have_one_form():
    task = draw_task(HARD, rng(8, "task"))

    assert canonical(task.constraints) == canonical(task.constraints[::-1])
