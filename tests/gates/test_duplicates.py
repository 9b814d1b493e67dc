"""The gate of near-duplicates, against a comparison of everything with everything."""

import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.gates.duplicates import Duplicates, is_same
from eva.gates.index import Index, Rule, keys, printed
from eva.gates.likeness import shingle_similarity
from eva.parts.gates import Duplicates as Part
from eva.protocols import Around
from eva.records import Message
from eva.words import words
from tests.gates.chats import chat, child, prompt

DRAW = random.Random(11)
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te", "so") for b in "bdfghjklmnprstvz"]


def text(length: int) -> str:
    return " ".join(DRAW.choice(WORDS) for _ in range(length))


def changed(text: str, place: int, by: str = "other") -> str:
    found = text.split()
    return " ".join([*found[:place], by, *found[place + 1 :]])


def flaws(children, around=None, **part):
    return Duplicates(Part(**part))(children, around or Around())


@pytest.mark.parametrize("length", [4, 5, 7, 10, 14, 19, 25, 32, 33, 45, 60])
def test_one_changed_word_case_and_punctuation_are_caught_at_every_length(length):
    known = [prompt(text(length)) for _ in range(20)]
    for original in known:
        asked = original.messages[0].content
        place = DRAW.randrange(length)
        forms = [
            changed(asked, place),
            asked.upper() + "!",
            asked.replace(" ", ", "),
            changed(asked, place, f"{asked.split()[place]} extra"),
            " ".join(w for i, w in enumerate(asked.split()) if i != place or length == 4),
        ]
        for form in forms:
            found = flaws([child(form)], Around(pool=known))
            assert found[0] is not None, form
            assert f"it repeats {original.id} of the pool" in found[0]


def test_unrelated_prompts_pass():
    known = [prompt(text(DRAW.randint(3, 60))) for _ in range(300)]
    children = [child(text(DRAW.randint(3, 60))) for _ in range(300)]
    assert flaws(children, Around(pool=known, history=known)) == [None] * 300


def test_prompts_of_fewer_words_than_four_are_the_same_only_word_for_word():
    assert (
        flaws([child("Name a bird"), child("Name a fish"), child("name a BIRD?")])[:2] == [None] * 2
    )
    assert flaws([child("Name a bird"), child("name a BIRD?")])[1] is not None


def test_the_rule_of_one_word_can_be_turned_off():
    two = [child("What is seven plus two?"), child("What is seven plus five?")]
    assert flaws(two)[1] is not None
    assert flaws(two, one_word=False) == [None, None]


def test_a_sign_before_a_number_is_a_word():
    two = [child("What is 2 + 3?"), child("What is 2 - 3?")]
    assert flaws(two, one_word=False) == [None, None]


def test_a_child_that_brings_eight_words_is_new_however_long_both_are():
    long = text(150)
    children = [child(long), child(f"{long} {text(8)}"), child(f"{long} {text(5)}")]
    # 148 shingles of 3 are shared, of 148 + 8 or 148 + 5: far above 0.7 both times.
    assert [flaw is None for flaw in flaws(children)] == [True, True, False]


def test_a_child_is_compared_with_earlier_children_that_passed_and_the_first_is_named():
    a = text(10)
    b, c = changed(a, 2), changed(changed(a, 2), 7)
    found = flaws([child(a), child(b), child(c)])
    # c differs from a in two words and from b, which is refused, in one.
    assert found[0] is None
    assert found[1].startswith(f"it repeats {child(a).id} of another child of this round")
    assert found[2] is None


def test_the_parent_is_left_to_the_gate_of_copies():
    origin = prompt(text(30))
    twin = child(changed(origin.messages[0].content, 4), parent=origin.id)
    stranger = child(changed(origin.messages[0].content, 4))
    around = Around({origin.id: origin}, pool=[origin])
    assert flaws([twin], around) == [None]
    assert flaws([stranger], around) != [None]
    second = child(changed(twin.messages[0].content, 9), parent=twin.id)  # of a chain
    # It differs from the first one in two words: 22 of 28 shingles, 22 / 34 = 0.65.
    assert flaws([twin, second], around) == [None, None]


def test_only_what_the_recipe_names_is_compared_with():
    known = prompt(text(12))
    twin = child(known.messages[0].content)
    for where, around in (
        ("pool", Around(pool=[known])),
        ("history", Around(history=[known])),
    ):
        others = tuple({"siblings", "pool", "history"} - {where})
        assert flaws([twin], around, against=(where,)) != [None]
        assert flaws([twin], around, against=others) == [None]
    assert flaws([twin, twin], against=("pool", "history")) == [None, None]
    assert flaws([twin, twin], against=("siblings",))[1] is not None


def test_chats_are_the_same_only_if_they_began_the_same():
    first, again = "Tell me about whales.", "Say more about how they sleep, in two sentences."
    known = prompt(first, "They are big.", again)
    around = Around(pool=[known])
    assert flaws([child(first, "They are BIG!", again.upper())], around) != [None]
    assert flaws([child(first, "They sing.", again)], around) == [None]
    assert flaws([child(again)], around) == [None]
    system = Message(role="system", content="Be brief.")
    told = child(again).model_copy(update={"messages": (system, *chat(again))})
    assert flaws([told, child(again)], Around()) == [None, None]


# ---------------------------------------------------------------- exactness


def slow(texts, pool, part):
    """Everything with everything, in order."""
    rule = Rule(part.similarity, part.shingle, part.one_word)
    prints, known = [printed(chat(t)) for t in texts], [printed(chat(t)) for t in pool]
    sound, verdicts = [], []
    for one in prints:
        hit = next(
            (f"pool {i}" for i, other in enumerate(known) if is_same(one, other, rule)), None
        )
        if hit is None:
            hit = next((f"sibling {i}" for i in sound if is_same(one, prints[i], rule)), None)
        verdicts.append(hit)
        if hit is None:
            sound.append(len(verdicts) - 1)
    return verdicts


SMALL = st.lists(st.sampled_from("abcdef"), min_size=0, max_size=14).map(" ".join)


@given(
    st.lists(SMALL, max_size=12),
    st.lists(SMALL, max_size=12),
    st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0]),
    st.integers(1, 4),
    st.booleans(),
)
def test_verdicts_equal_those_of_comparing_everything(texts, pool, similarity, shingle, one_word):
    part = Part(similarity=similarity, shingle=shingle, one_word=one_word)
    known = [prompt(t, data={"n": i}) for i, t in enumerate(pool)]
    children = [
        child(t).model_copy(update={"data": {"n": -1 - i}}) for i, t in enumerate(texts)
    ]  # texts may repeat, ids must not
    found = Duplicates(part)(children, Around(pool=known))
    names = {p.id: f"pool {i}" for i, p in enumerate(known)}
    names |= {c.id: f"sibling {i}" for i, c in enumerate(children)}
    said = [None if flaw is None else names[flaw.split()[2]] for flaw in found]
    assert said == slow(texts, pool, part)


def test_no_pair_is_missed_among_many_texts_that_share_much():
    # Recall of the index itself: all pairs above the threshold are candidates of each other.
    rule = Rule(0.5, 2, one_word=False)
    texts = [text(DRAW.randint(2, 12)) for _ in range(150)]
    texts += [changed(DRAW.choice(texts), 1) for _ in range(150)]
    prints = [printed(chat(t)) for t in texts]
    known = keys(prints, rule)
    candidates = Index(known, rule.similarity).candidates(known)
    pairs = 0
    for i, one in enumerate(prints):
        met = {int(j) for found in candidates.get(i, ()) for j in found}
        for j, other in enumerate(prints):
            if shingle_similarity(one.words, other.words, 2) >= rule.similarity:
                pairs += i != j
                assert j in met
    assert pairs > 100


def test_verdicts_do_not_hang_on_what_was_asked_before():
    gate = Duplicates(Part())
    pool = [prompt(text(12)) for _ in range(40)]
    other = [prompt(text(12)) for _ in range(40)]
    children = [child(changed(p.messages[0].content, 3)) for p in pool]
    fresh = Duplicates(Part())(children, Around(pool=pool, history=other))
    gate(children, Around(pool=other, history=pool))
    gate(children, Around(pool=pool[:20]))
    assert gate(children, Around(pool=pool, history=other)) == fresh
    assert gate(children, Around(pool=list(pool), history=tuple(other))) == fresh
    assert all(flaw is not None for flaw in fresh)


def test_the_index_of_the_same_pool_is_built_once():
    gate = Duplicates(Part(against=("pool",)))
    pool = [prompt(text(12)) for _ in range(10)]
    gate([child(text(9))], Around(pool=pool))
    held = gate._held["pool"][1]
    gate([child(text(9))], Around(pool=[p.model_copy() for p in pool]))
    assert gate._held["pool"][1] is held
    pool[3] = prompt(text(12))  # the list is the same, its prompts are not
    twin = child(pool[3].messages[0].content)
    assert gate([twin], Around(pool=pool))[0] is not None


def test_nothing_to_judge_is_no_mistake():
    assert flaws([]) == []
    assert flaws([], Around(pool=[prompt("a b c d")])) == []
    assert flaws([child("?"), child("!")], Around(pool=[prompt("...")])) == [None, None]


def test_verdicts_are_the_same_whatever_seeds_hashes(tmp_path):
    """Hashes of words differ from process to process; verdicts must not."""
    program = (
        "import random; from tests.gates.chats import child, prompt\n"
        "from eva.gates.duplicates import Duplicates; from eva.parts.gates import Duplicates as P\n"
        "from eva.protocols import Around; r = random.Random(1)\n"
        "t = lambda: ' '.join(r.choice('abcde') for _ in range(r.randint(3, 12)))\n"
        "pool = [prompt(t()) for _ in range(60)]\n"
        "print(Duplicates(P())([child(t()) for _ in range(200)], Around(pool=pool)))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert "repeats" in said.pop()


def test_words_are_what_is_compared():
    assert words("It's A-B; 3.5*2") == ["its", "a", "b", "3", "5", "*", "2"]
