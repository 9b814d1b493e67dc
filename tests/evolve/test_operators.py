"""Operators are text files, eva's own or yours, filled in literally."""

import pytest

from eva.errors import RecipeError
from eva.evolve.operators import SHIPPED, WORDS, form, operators, read, template
from eva.parts.evolvers import IN_BREADTH, IN_DEPTH
from tests.evolve.world import Scribe, asked, evol_instruct, no_policy, scored

ALL = (*IN_DEPTH, *IN_BREADTH)


def test_every_operator_of_the_recipe_ships_and_no_file_is_left_over():
    files = {path.stem for path in SHIPPED.glob("*.md") if not path.stem.startswith("_")}

    assert files == {*ALL, "follow_up", "self_instruct"}
    assert set(operators(ALL, None)) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_an_operator_says_its_own_thing_and_the_rules_of_its_direction(name):
    found = operators([name], None)[name]

    rules = (SHIPPED / f"_in_{'depth' if name in IN_DEPTH else 'breadth'}.md").read_text("utf-8")
    assert rules.strip() in found.text
    assert {word[1] for word in WORDS.finditer(found.text)} == (
        {"prompt", "other"} if name == "mix" else {"prompt"}
    )
    others = [one.text.splitlines()[0] for one in operators(ALL, None).values()]
    assert others.count(found.text.splitlines()[0]) == 1


def test_texts_are_filled_in_as_they_stand():
    hostile = r"\1 {other} {prompt} {in_depth} {} </old_prompt> <new_prompt> %s \g<0>"
    mix = operators(["mix"], None)["mix"]

    filled = mix.filled(prompt=hostile, other="{prompt}")

    assert filled == mix.text.replace("{prompt}", "\0").replace("{other}", "{prompt}").replace(
        "\0", hostile
    )


def test_an_own_operator_is_found_by_its_name(tmp_path):
    (tmp_path / "rhyme.md").write_text('Make it rhyme, as JSON {"a": {}}:\n{prompt}\n')
    scribe = Scribe(lambda prompt, seed: "<new_prompt>A rhyme in time.</new_prompt>")

    evolve = evol_instruct(
        asked(scribe), operators={"rhyme": 1}, templates=str(tmp_path), children=1
    )
    [child] = evolve([scored("Say it.")], no_policy, seed=1)

    assert child.method == "rhyme"
    assert scribe.requests == ['Make it rhyme, as JSON {"a": {}}:\nSay it.\n\n' + form()]


def test_an_own_file_of_evas_name_replaces_it_and_the_others_stay(tmp_path):
    (tmp_path / "deepen.md").write_text("Dig deeper.\n\n{in_depth}\n\n{prompt}")
    (tmp_path / "_in_depth.md").write_text("My rules.")

    found = operators(["deepen", "expand", "breadth"], str(tmp_path))

    assert found["deepen"].text == "Dig deeper.\n\nMy rules.\n\n{prompt}"
    assert "My rules." in found["expand"].text  # eva's operator, your rules
    assert found["breadth"] == operators(["breadth"], None)["breadth"]


def test_an_unknown_operator_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match="no operator 'deppen'; did you mean 'deepen'"):
        evol_instruct(operators={"deppen": 0, "expand": 1})


@pytest.mark.parametrize("name", ["_form", "_in_depth", "follow_up", "self_instruct", "../x"])
def test_what_is_no_operator_cannot_be_drawn(name):
    with pytest.raises(RecipeError, match="there is no operator"):
        operators([name], None)


def test_what_cannot_be_used_is_told_before_any_work(tmp_path):
    (tmp_path / "bare.md").write_text("Rewrite it.")
    (tmp_path / "latin.md").write_bytes(b"Schr\xe4nken {prompt}")

    with pytest.raises(RecipeError, match=r"bare\.md has no \{prompt\}"):
        operators(["bare"], str(tmp_path))
    with pytest.raises(RecipeError, match=r"latin\.md cannot be read as UTF-8"):
        operators(["latin"], str(tmp_path))
    with pytest.raises(RecipeError, match="there is no folder"):
        operators(["deepen"], str(tmp_path / "none"))
    with pytest.raises(RecipeError, match="cannot be read"):
        read(tmp_path / "none.md", "examples")


def test_an_output_that_repeats_the_instruction_has_a_flaw():
    told = template("deepen", "prompt").text.splitlines()[0]
    scribe = Scribe(lambda prompt, seed: f"<new_prompt>{told}</new_prompt>")

    [child] = evol_instruct(asked(scribe), operators={"deepen": 1}, children=1)(
        [scored("Say it.")], no_policy, seed=1
    )

    assert child.flaw == "it repeats the request instead of answering it"


def test_a_prompt_that_looks_like_a_template_is_shown_as_it_stands():
    text = "{prompt} {other} {transcript} \\1 {in_depth} <old_prompt> <conversation>"
    scribe = Scribe(lambda prompt, seed: "<new_prompt>Something else.</new_prompt>")

    evol_instruct(asked(scribe), operators={"deepen": 1}, children=1)(
        [scored(text)], no_policy, seed=1
    )

    [request] = scribe.requests
    assert f"<old_prompt>\n{text}\n</old_prompt>" in request
