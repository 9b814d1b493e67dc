import doctest

import pytest

import eva.words
from eva.records import Message
from eva.words import asked, shingles, user_turns, words


def test_the_examples_hold():
    assert doctest.testmod(eva.words)[0] == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("...  \n", []),
        ("A-b_c", ["a", "b", "c"]),
        ("It\u2019s it's its", ["its", "its", "its"]),
        ("'quoted'", ["quoted"]),
        ("STRASSE Stra\u00dfe", ["strasse", "strasse"]),
        ("\uff21\uff22\uff23", ["abc"]),  # full-width letters
        ("caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"]),
        ("x = 3, y = z", ["x", "=", "3", "y", "z"]),
        ("* 3 apples - pears", ["*", "3", "apples", "pears"]),
        ("GPT4\u732b", ["gpt4", "\u732b"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
    ],
)
def test_words_are_told_without_case_and_punctuation(text, found):
    assert words(text) == found


def test_shingles_are_runs_of_words():
    assert shingles(["a", "b", "a", "b"], 2) == {("a", "b"), ("b", "a")}
    assert shingles(["a", "b"], 2) == {("a", "b")}
    assert shingles(["a"], 3) == {("a",)}
    assert shingles([], 3) == set()


def test_what_a_chat_asks_is_its_last_user_turn():
    turns = [("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two")]
    chat = [Message(role=role, content=text) for role, text in turns]
    assert asked(chat) == "two"
    assert user_turns(chat) == ["one", "two"]
    assert asked(chat[:1]) == ""
