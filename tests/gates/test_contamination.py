import random

import pytest

from eva.gates.contamination import Contamination, longest
from eva.parts.gates import Contamination as Part
from eva.protocols import Around
from eva.records import Message, Prompt
from tests.gates.chats import child, prompt

QUESTION = (
    "A baker sells rye bread on weekdays and cake on Sundays. If she bakes ninety loaves a week "
    "and each needs half a kilo of flour, how much flour does she order for four weeks?"
)
MIDDLE = "Describe the smell of rain to somebody who was born without that sense"  # 13 words
SHORT = "Draft a polite reminder about an unpaid invoice"  # 8 words
TINY = "Tell me a joke"
GENERIC = "hi"
TURNS = prompt("Plan a walk through the old town.", "Begin at the gate.", SHORT + ".")


@pytest.fixture(scope="module")
def gate():
    apart = {
        "arena": [prompt(QUESTION), prompt(MIDDLE)],
        "bench": [TURNS, prompt(TINY), prompt(GENERIC)],
    }
    return Contamination(Part(), apart)


def flaw(gate, *turns):
    return gate([child(*turns)], Around())[0]


def changed(text: str, place: int) -> str:
    words = text.split()
    return " ".join([*words[:place], "changed", *words[place + 1 :]])


@pytest.mark.parametrize("text", [QUESTION, MIDDLE, SHORT, TINY])
def test_a_prompt_in_other_case_punctuation_and_space_is_refused(gate, text):
    for form in (text, text.upper(), text.replace(" ", "  \n"), f'"{text.replace(",", ";")}" ...'):
        assert flaw(gate, form) is not None


@pytest.mark.parametrize("text", [QUESTION, MIDDLE, SHORT, TINY])
def test_one_changed_word_anywhere_does_not_help(gate, text):
    for place in range(len(text.split())):
        assert flaw(gate, changed(text, place)) is not None


@pytest.mark.parametrize("text", [QUESTION, MIDDLE, SHORT])
def test_a_prompt_within_a_longer_one_is_refused(gate, text):
    asked = f"You are a patient teacher who likes examples. {text} Then write a quiz about it."
    assert flaw(gate, asked) is not None


def test_a_long_prompt_with_a_changed_word_within_a_longer_one_is_refused(gate):
    filler = "Think step by step, and after that tell me what you would ask a friend instead. " * 4
    assert flaw(gate, filler + changed(QUESTION, 17) + filler) is not None


def test_a_run_of_13_words_is_refused_and_one_of_12_passes(gate):
    words = QUESTION.split()
    rest = "and now something else entirely about mountains lakes valleys and their many names"
    assert "a run of 13 words" in flaw(gate, " ".join(words[5:18]) + " " + rest)
    assert flaw(gate, " ".join(words[5:17]) + " " + rest) is None


def test_every_user_turn_counts_on_both_sides(gate):
    assert flaw(gate, SHORT, "Dear sir ...", "Now make it shorter, please, by a third.") is not None
    assert flaw(gate, "What is new today?", "Nothing.", SHORT) is not None
    assert flaw(gate, "What is new today?", SHORT, "And what else is there?") is None  # not asked


def test_short_and_generic_prompts_refuse_what_asks_the_same_and_nothing_else(gate):
    assert flaw(gate, "Hi!") is not None
    assert flaw(gate, "Hi!", "Hello.", "How do I descale a kettle without vinegar?") is None
    assert flaw(gate, "hi, how do I descale a kettle?") is None
    assert flaw(gate, "Tell me a joke that a physicist would explain to a cat for hours.") is None


@pytest.mark.parametrize(
    "text",
    [
        "A potter sells bowls at a market. How many does she sell in a year of fifty weeks?",
        "Describe the taste of salt to somebody who has lived on the moon.",
        "How much flour does a loaf of rye bread need, and why does it need a sourdough?",
        "Draft a cheerful reply to an invitation to a wedding.",
        "",
    ],
)
def test_unrelated_prompts_pass(gate, text):
    assert flaw(gate, text or "?") is None


def test_the_flaw_names_the_set_and_the_prompt(gate):
    assert flaw(gate, MIDDLE) == (
        f"it asks what the evaluation prompt {prompt(MIDDLE).id} of arena asks, but for one word "
        "at most"
    )
    assert f"{TURNS.id} of bench" in flaw(gate, SHORT)


def test_a_shorter_run_can_be_asked_for():
    strict = Contamination(Part(words=5), {"arena": [prompt(QUESTION)]})
    assert "a run of 5 words" in flaw(strict, "Some say she bakes ninety loaves a day, but why?")


def test_evaluation_prompts_without_a_user_turn_refuse_nothing():
    silent = Prompt(messages=(Message(role="system", content=QUESTION),))
    gate = Contamination(Part(), {"odd": [silent], "empty": []})
    assert flaw(gate, QUESTION) is None


def test_random_texts_are_refused_exactly_where_a_slow_reading_finds_a_run():
    # Four words in all, so that runs of nine come about by chance; similarity 1 leaves runs alone.
    draw = random.Random(3)
    sets = [[draw.choice("abcd") for _ in range(draw.randint(8, 40))] for _ in range(60)]
    gate = Contamination(Part(words=9, similarity=1.0), {"s": [prompt(" ".join(s)) for s in sets]})
    runs = {tuple(w[i : i + 9]) for w in sets for i in range(max(1, len(w) - 8))}
    hits = 0
    for _ in range(200):
        asked = [draw.choice("abcd") for _ in range(40)]  # too long for the rule of one word
        slow = any(f" {' '.join(run)} " in f" {' '.join(asked)} " for run in runs)
        hits += slow
        assert ("has a run of" in (flaw(gate, " ".join(asked)) or "")) == slow
    assert 10 < hits < 190


def test_the_longest_streak_is_found():
    assert longest([]) == 0
    assert longest([False, False]) == 0
    assert longest([True, True, False, True]) == 2
