from eva.records import Message
from eva.report.marks import bars, changed, chat, clipped, number, shown, signed
from tests.report.fake_runs import HOSTILE


def test_markup_in_a_text_is_escaped() -> None:
    for text in HOSTILE:
        assert "<" not in shown(text).replace('<i class="cp">', "").replace("</i>", "")


def test_characters_that_hide_or_turn_text_are_written_out() -> None:
    assert shown("a\u202eb") == 'a<i class="cp">U+202E</i>b'
    assert shown("\x00") == '<i class="cp">U+0000</i>'
    assert shown("\u2028") == '<i class="cp">U+2028</i>'


def test_joined_emoji_and_line_breaks_stay_as_they_are() -> None:
    assert shown("👩‍👧\n\t日本") == "👩‍👧\n\t日本"


def test_a_short_text_is_whole_and_a_long_one_opens_up_to_a_limit() -> None:
    assert clipped("short") == "short"
    long = clipped("x" * 10_000, preview=20, whole=100)
    assert long.count("x") == 20 + 100 and "9,900 more characters" in long


def test_words_that_are_new_are_marked_and_dropped_ones_struck() -> None:
    assert changed("last 6 even", "last 6 even distinct") == "last 6 even <ins>distinct</ins>"
    assert changed("odd up", "pal up") == "<del>odd</del> <ins>pal</ins> up"
    assert changed("<b>", "<b> <i>") == "&lt;b&gt; <ins>&lt;i&gt;</ins>"


def test_a_very_long_text_is_not_compared_word_by_word() -> None:
    assert "<ins>" not in changed("a " * 50_000, "b " * 50_000)


def test_a_chat_of_several_turns_shows_who_speaks_and_a_single_turn_does_not() -> None:
    turns = [Message(role="system", content="be brief"), Message(role="user", content="hello")]
    assert '<b class="role">system</b>' in chat(turns)
    assert "role" not in chat(turns[1:])


def test_of_a_very_long_chat_the_last_turns_are_shown() -> None:
    turns = [Message(role="user", content=f"turn {n} " + "x" * 5000) for n in range(100)]
    markup = chat(turns)
    assert "88 earlier turns" in markup and "turn 99 " in markup and "turn 87 " not in markup
    assert len(markup) < 20_000


def test_bars_are_as_many_as_rewards_and_a_missing_one_is_a_ring() -> None:
    markup = bars([0.5, None, 1.0], 0.0, 1.0)
    assert markup.count("<rect") == 2 and markup.count("<circle") == 1
    assert "rewards 0.50 1.00, 1 missing" in markup


def test_equal_bounds_draw_bars_too() -> None:
    assert bars([1.0], 1.0, 1.0).count("<rect") == 1


def test_numbers_have_a_true_minus_and_a_missing_one_is_a_dash() -> None:
    assert number(-1234.5, 1) == "\u22121,234.5"
    assert number(None) == "\u2013"
    assert signed(0.25) == "+0.250" and signed(-0.25) == "\u22120.250"
