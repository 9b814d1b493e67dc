import pytest

from eva.gates.shape import Copy, Growth, Words
from eva.protocols import Around
from tests.gates.chats import child, family, prompt

PARENT = "Explain how a sailing ship can travel against the wind, and draw the forces on its sail."
LONG = " ".join(f"word{i}" for i in range(200))


def test_the_last_user_turn_must_have_as_many_words_as_allowed():
    texts = ["one two", "one two three", "a b c d e", "a b c d e f", "?!"]
    flaws = Words(3, 5)([child(text) for text in texts], Around())
    assert [flaw is None for flaw in flaws] == [False, True, True, False, False]
    assert flaws[3] == "it has 6 words; between 3 and 5 are allowed"
    assert Words(3, 5)([child("a b c", "many words that the model said", "x y")], Around())[0]


def test_a_language_without_spaces_is_counted_by_its_signs():
    # Nine signs: far more than three words.
    assert Words(3, 50)([child("太陽はなぜ赤いの?")], Around()) == [None]


def test_a_child_may_grow_as_often_as_allowed_and_to_64_words_in_any_case():
    children, around = family("a b c d", " ".join("x" * 64), " ".join("x" * 65))
    assert Growth(4.0)(children, around)[0] is None
    assert Growth(4.0)(children, around)[1] == "it has 65 words where its parent has 4: 16.2 times"
    children, around = family(" ".join("x" * 40), " ".join("x" * 160), " ".join("x" * 161))
    assert [flaw is None for flaw in Growth(4.0)(children, around)] == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        PARENT,
        PARENT.upper(),
        PARENT.replace(",", " -").replace(".", " !"),
        PARENT.replace("sailing", "rowing"),
        PARENT.replace("sailing ", ""),
        PARENT.replace("ship", "old ship"),
        PARENT.replace(" ", "\n\n"),
    ],
)
def test_a_copy_of_the_parent_is_refused(text):
    children, around = family(PARENT, text)
    assert Copy(0.9)(children, around)[0] is not None


@pytest.mark.parametrize(
    "text",
    [
        PARENT + " Answer in the form of a letter to a child who has never seen the sea.",
        "Why does a keel keep a boat upright, and what happens to it without one?",
        "Explain how a glider can climb without an engine, and draw the air that carries it.",
    ],
)
def test_a_child_that_asks_for_more_or_else_passes(text):
    children, around = family(PARENT, text)
    assert Copy(0.9)(children, around) == [None]


def test_a_long_parent_leaves_room_for_a_constraint():
    # 200 words and 12 more: the similarity of words is 200 / 212 = 0.94, and yet it asks for more.
    children, around = family(LONG, f"{LONG} {' '.join('abcdefghijkl')}", f"{LONG} a b c d e f g")
    flaws = Copy(0.9)(children, around)
    assert flaws[0] is None
    assert flaws[1] == "it copies its parent: the similarity of their words is 0.97"  # 200 / 207


def test_in_a_chain_the_parent_is_the_child_before():
    origin, first = prompt("Name a river."), child("Name a river and the sea that it flows into.")
    second = child("Name a river and the lake that it flows into.", parent=first.id)
    parents = {origin.id: origin, first.id: first.grown(0)}
    assert Copy(0.9)([second], Around(parents))[0] == "it differs from its parent in one word"


def test_a_child_of_an_unknown_parent_passes():
    assert Copy(0.9)([child(PARENT)], Around()) == [None]
    assert Growth(1.5)([child(LONG)], Around()) == [None]


def test_the_last_user_turn_is_compared_whatever_stands_before():
    origin = prompt("Tell me of the moon.", "It is round.", "How far away is it from here?")
    again = child(
        "Tell me of the moon.", "It is round.", "How far away is it from here?",
        "384,400 km.", "How far away is it from there?", parent=origin.id,
    )  # fmt: skip
    assert Copy(0.9)([again], Around({origin.id: origin}))[0] is not None
