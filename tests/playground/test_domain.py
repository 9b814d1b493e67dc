"""The constraint language: each word by hand, parsing with reasons, canonical forms, scores."""

import pytest

from eva.playground.domain import (
    EVERY_CONSTRAINT,
    WORDS,
    Constraint,
    canonical,
    parse,
    parse_answer,
    parse_chat,
    render,
    score,
)
from eva.records import Message

# For each word: a constraint, answers that meet it, answers that do not.
TABLE = {
    "len": ("len 3", ["1 2 3", "0 0 0"], ["1 2", "1 2 3 4"]),
    "has": ("has 7", ["7", "1 7 2"], ["1 2", "8"]),
    "no": ("no 7", ["1 2", "8"], ["7", "1 7 2"]),
    "first": ("first 4", ["4", "4 1"], ["1 4", "5"]),
    "last": ("last 6", ["6", "8 4 2 6"], ["6 1", "5"]),
    "up": ("up", ["1 2 5", "3 3 4"], ["1 3 2", "1 2", "9"]),
    "down": ("down", ["5 2 1", "4 3 3"], ["3 1 2", "2 1", "9"]),
    "twice": ("twice 2", ["2 2", "2 1 2"], ["2", "2 2 2", "1"]),
    "distinct": ("distinct", ["1 2 3"], ["1 2 1", "1 2", "9"]),
    "pal": ("pal", ["1 2 1", "3 5 5 3"], ["1 2 2", "3 3", "7"]),
    "even": ("even", ["0 2 8", "4"], ["2 3", "1"]),
    "odd": ("odd", ["1 9 3", "5"], ["1 2", "0"]),
    "min": ("min 4", ["4 9", "5"], ["3 9", "0"]),
    "max": ("max 4", ["4 0", "3"], ["5 0", "9"]),
    "sum": ("sum 2", ["9 9 2", "5 5 5 5"], ["9 9 1", "1"]),
    "ends": ("ends", ["3 1 3"], ["1 2 3", "3 3", "4"]),
    "absent": ("absent 2", ["1 3", "8"], ["2 1", "1 7", "2 7"]),
    "peak": ("peak", ["1 5 2", "3 2 4 1"], ["1 2 3", "5 1", "1 2 2 1", "3 1 3"]),
    "step": ("step 2", ["1 3 2"], ["1 4 2", "9 6 5", "1 2", "7"]),
    "more": ("more 4", ["8 4 2 6", "5"], ["4 3", "1 2 9"]),
}


def test_the_table_covers_the_twenty_words():
    assert list(TABLE) == list(WORDS)
    assert len(WORDS) == 20


@pytest.mark.parametrize(("text", "met", "missed"), TABLE.values(), ids=TABLE)
def test_a_word_holds_for_what_it_means_and_for_nothing_else(text, met, missed):
    (constraint,) = parse(text)

    assert [y for y in met if not constraint.holds(parse_answer(y))] == []
    assert [y for y in missed if constraint.holds(parse_answer(y))] == []


def test_no_constraint_is_met_by_every_answer_or_by_none():
    # One-digit lists and these longer ones are enough to tell every constraint from both.
    texts = [str(d) for d in range(10)]
    texts += ["0 9 0 9", "9 0 0 9", " ".join("0123456789"), " ".join("9" * 10), "5 1 0"]
    texts += [" ".join(pair * 2) for pair in ("00", "11", "22", "33", "44", "55", "66", "77")]
    texts += [f"{d} {d}" for d in range(10)] + [" ".join("9" * n) for n in range(1, 10)]
    answers = [parse_answer(text) for text in texts]

    for constraint in EVERY_CONSTRAINT:
        held = {constraint.holds(y) for y in answers}
        assert held == {True, False}, constraint


def test_one_constraint_can_ask_112_things():
    # 9 len + 6 words of ten values (has, no, first, last, twice: 5 x 10) + 8 words without a value
    # + 9 each of min, max, sum, more + 5 absent + 4 step = 9 + 50 + 8 + 36 + 5 + 4.
    assert len(EVERY_CONSTRAINT) == 112
    assert len(set(EVERY_CONSTRAINT)) == 112


def test_parsing_reads_what_rendering_writes():
    text = render(EVERY_CONSTRAINT[::12])

    assert parse(text) == EVERY_CONSTRAINT[::12]
    assert parse("  last 6\n more  4 even ") == parse("last 6 more 4 even")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 constraints; expected 1 to 10"),
        ("even " * 11, "11 constraints; expected 1 to 10"),
        ("even nice", "'nice' is no word of the constraint language"),
        ("even =", "'=' is no word of the constraint language"),
        ("even 4", "'4' is no word of the constraint language"),
        ("last", "'last' takes a value from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; got 'nothing'"),
        ("absent 7", "'absent' takes a value from 0, 1, 2, 3, 4; got '7'"),
        ("step two", "'step' takes a value from 1, 2, 3, 4; got 'two'"),
    ],
)
def test_a_text_that_is_no_prompt_has_a_reason(text, reason):
    assert parse(text) == reason


def test_a_chat_is_one_user_turn():
    user = Message(role="user", content="last 6 even")

    assert parse_chat([user]) == (Constraint("last", 6), Constraint("even"))
    assert parse_chat([]) == "a prompt is one user turn; got the turns: none"
    assert parse_chat([user, Message(role="assistant", content="6")]) == (
        "a prompt is one user turn; got the turns: user, assistant"
    )


def test_the_canonical_form_forgets_order_and_repetition():
    assert canonical(parse("up has 3 has 1 up")) == "has 1 has 3 up"
    assert canonical(parse("has 1 up has 3")) == "has 1 has 3 up"


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("7", (7,)),
        (" 8 4  2 6 ", (8, 4, 2, 6)),
        ("0 1 2 3 4 5 6 7 8 9", tuple(range(10))),
        ("", "0 digits; expected 1 to 10"),
        ("1 1 1 1 1 1 1 1 1 1 1", "11 digits; expected 1 to 10"),
        ("84", "'84' is no digit"),
        ("8 = 4", "'=' is no digit"),
        ("8 -4", "'-4' is no digit"),
        ("٣", "'٣' is no digit"),
    ],
)
def test_an_answer_is_one_to_ten_digits_or_has_a_reason(text, digits):
    assert parse_answer(text) == digits


@pytest.mark.parametrize(
    ("prompt", "y", "expected"),
    [
        # Of 8 4 2 6, three of four digits are at least 4: all three hold.
        ("last 6 more 4 even", (8, 4, 2, 6), 1.0),
        # Two of three hold: 0.5 * 2 / 3.
        ("last 6 more 4 even", (8, 4, 2), 1 / 3),
        # Only "last 6" holds: 0.5 * 1 / 3.
        ("last 6 more 4 even", (1, 1, 6), 1 / 6),
        ("last 6 more 4 even", (1,), 0.0),
        # A constraint stated twice counts twice: 0.5 * 2 / 3.
        ("odd odd len 2", (1,), 1 / 3),
    ],
)
def test_the_score_is_half_the_share_and_half_for_all(prompt, y, expected):
    assert score(parse(prompt), y) == pytest.approx(expected, abs=1e-15)
