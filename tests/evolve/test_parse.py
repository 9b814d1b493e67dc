"""What a writer put out becomes a prompt or a reason, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.evolve.operators import SHIPPED
from eva.evolve.parse import MARKER, OTHER_MARKER, bare, block, parsed
from eva.records import Response


def text_of(output, finish="stop", **request):
    found = parsed(Response(text=output, finish=finish), **request)
    assert found.flaw is None, found.flaw
    return found.text


def flaw_of(output, finish="stop", **request):
    found = parsed(Response(text=output, finish=finish), **request)
    assert found.flaw
    assert found.text == ""
    return found.flaw


@pytest.mark.parametrize(
    "output",
    [
        "<new_prompt>Why is it so?</new_prompt>",
        "Sure!\n\n<new_prompt>\nWhy is it so?\n</new_prompt>\n\nI hope this helps.",
        "<NEW_PROMPT>Why is it so?</NEW_PROMPT>",
        "<new prompt>Why is it so?</new prompt>",
        "<new\\_prompt>Why is it so?</new\\_prompt>",
        "< new_prompt >Why is it so?</ new_prompt >",
        "A draft: <new_prompt>Why so?</new_prompt> Better: <new_prompt>Why is it so?</new_prompt>",
        "<new_prompt>...</new_prompt> is the form.\n<new_prompt>Why is it so?</new_prompt>",
        "<new_prompt>Why? <new_prompt>Why is it so?</new_prompt>",
        "<new_prompt>Why is it so?</new_prompt> I wrote it between <new_prompt> and its end.",
        "<new_prompt>Why is it so?",  # ended by the model itself
        "<think>Maybe <new_prompt>Why?</new_prompt></think><new_prompt>Why is it so?</new_prompt>",
        "<new_prompt>Here is the rewritten prompt:\n\nWhy is it so?</new_prompt>",
        "<new_prompt>Sure, here's a new version of the prompt: Why is it so?</new_prompt>",
        "<new_prompt>#Rewritten Prompt#:\nWhy is it so?</new_prompt>",
        "<new_prompt>**New prompt:** Why is it so?</new_prompt>",
        "<new_prompt>## New Prompt\n\nWhy is it so?</new_prompt>",
        '<new_prompt>"Why is it so?"</new_prompt>',
        "<new_prompt>“Why is it so?”</new_prompt>",
        '<new_prompt>New prompt: "Why is it so?"</new_prompt>',
        "<new_prompt>```\nWhy is it so?\n```</new_prompt>",
        "```\n<new_prompt>\nWhy is it so?\n</new_prompt>\n```",
    ],
)
def test_what_stands_between_the_markers_is_the_prompt(output):
    assert text_of(output) == "Why is it so?"


@pytest.mark.parametrize(
    "text",
    [
        "Here is a table of sales:\n\n| a | b |\n\nWhich is best?",
        "New prompt engineering methods: list three of them.",
        '"To be or not to be": who says it, and where does he say "words"?',
        "```python\nprint(1)\n```",
        "```\na = 1\n```\nWhat does it print?\n```\nprint(a)\n```",
        "Is 3 < 4 and 5 > 4? Write <b>yes</b> in HTML.",
        "Explain `x` and `y`",
        "Line one.\u2028Line two.",
    ],
)
def test_a_prompt_is_not_cut_where_it_only_looks_like_talk(text):
    assert text_of(f"<new_prompt>{text}</new_prompt>") == text


@pytest.mark.parametrize(
    ("output", "flaw"),
    [
        ("I cannot help with that.", "no <new_prompt> in the output"),
        ("", "no <new_prompt> in the output"),
        ("Why is it so?</new_prompt>", "no <new_prompt> in the output"),
        ("<think>It goes on <new_prompt>Why?</new_prompt>", "no <new_prompt> in the output"),
        ("<new_prompt></new_prompt>", "no words between the markers"),
        ("<new_prompt>\n...\n</new_prompt>", "no words between the markers"),
        ("<new_prompt>Here is the new prompt:</new_prompt>", "no words between the markers"),
        (
            "<new_prompt><old_prompt>Why?</old_prompt></new_prompt>",
            "a marker of the request, <old_prompt>, stands in it",
        ),
        ("<new_prompt>Do {prompt} now</new_prompt>", "a placeholder of a template stands in it"),
    ],
)
def test_what_holds_no_prompt_has_a_reason(output, flaw):
    assert flaw_of(output) == flaw


def test_a_cut_output_has_a_prompt_only_if_its_block_is_whole():
    cut = "the output was cut at the token limit before </new_prompt>"

    assert flaw_of("<new_prompt>Why is it", "length") == cut
    assert flaw_of("Let me think about it", "length") == cut
    assert text_of("<new_prompt>Why is it so?</new_prompt> I chose", "length") == "Why is it so?"


def test_an_answer_that_never_came_keeps_the_reason_of_the_server():
    response = Response(text="", finish="error", error="400: too long")

    assert parsed(response).flaw == "the writer gave no answer: 400: too long"


def test_a_copy_of_what_was_shown_is_no_new_prompt():
    shown = ("Why is\nit so?", "Another.")

    copied = "it repeats a prompt that the request showed"
    assert flaw_of("<new_prompt> Why  is it so? </new_prompt>", shown=shown) == copied
    assert flaw_of("<new_prompt>Another.</new_prompt>", shown=shown) == copied
    assert text_of("<new_prompt>Why is it so not?</new_prompt>", shown=shown) == "Why is it so not?"


def test_a_placeholder_that_the_old_prompt_had_may_stay():
    shown = ("Format {prompt} in Python.",)

    assert text_of("<new_prompt>Format {prompt} twice.</new_prompt>", shown=shown)
    assert flaw_of("<new_prompt>Format {other} twice.</new_prompt>", shown=shown)


def test_an_output_that_repeats_the_request_is_no_prompt():
    told = frozenset({"Below is a prompt that somebody sent to an AI assistant."})
    output = f"<new_prompt>{next(iter(told))} Make it harder.</new_prompt>"

    assert flaw_of(output, told=told) == "it repeats the request instead of answering it"


PIECES = [
    *("<new_prompt>", "</new_prompt>", "<NEW PROMPT>", "</new\\_prompt", ">", "<", "<think>"),
    *("</think>", "New prompt:", "Here is the new prompt:", '"', "“", "”", "```", "```text\n"),
    *("\n", " ", "word", "{prompt}", "{other}", "<old_prompt>", "</conversation>", "#", "**"),
]
noise = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
pieces = st.lists(st.sampled_from(PIECES) | noise, max_size=20).map("".join)


@given(pieces, st.sampled_from(["stop", "length"]), st.lists(pieces, max_size=2))
def test_any_output_gives_a_prompt_without_markers_or_a_reason(output, finish, shown):
    found = parsed(Response(text=output, finish=finish), shown)

    assert bool(found.text) != bool(found.flaw)
    assert not MARKER.search(found.text)
    assert not OTHER_MARKER.search(found.text)
    assert found.text in output
    assert found.text == found.text.strip() == bare(found.text)


@given(pieces)
def test_a_block_holds_no_marker(output):
    found = block(output)

    assert found is None or not MARKER.search(found.text)


def test_the_markers_of_the_form_are_those_that_are_parsed():
    form = (SHIPPED / "_form.md").read_text("utf-8")

    assert [found[0] for found in MARKER.finditer(form)] == ["<new_prompt>", "</new_prompt>"]
    assert flaw_of(form) == "no words between the markers"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.md")), ids=lambda path: path.stem)
def test_every_marker_of_a_template_is_known(path):
    found = re.findall(r"</?\w+>", path.read_text("utf-8"))

    assert all(MARKER.fullmatch(tag) or OTHER_MARKER.fullmatch(tag) for tag in found)
