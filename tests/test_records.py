"""Records hold any text, refuse what is no record, and survive their own JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from eva.records import (
    Child,
    Message,
    Pair,
    Prompt,
    Response,
    Rollout,
    Sampling,
)

ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def asked(text: str = "hi", **fields) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), **fields)


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_survives_a_line_of_json(question, answer):
    rollout = Rollout(
        prompt=asked(question, data={"k": answer}),
        responses=(Response(text=answer), Response(text=question)),
        rewards=(0.25, None),
        policy="p",
        round=0,
    )
    line = rollout.model_dump_json().encode()
    assert b"\n" not in line
    assert Rollout.model_validate_json(line) == rollout


def test_text_with_line_separators_and_a_megabyte_survive():
    text = "a\u2028b\u2029c\x85d\x00" + "x" * 1_000_000
    response = Response(text=text)
    assert Response.model_validate_json(response.model_dump_json()).text == text


@pytest.mark.parametrize("field", ["content", "data"])
def test_a_lone_surrogate_is_refused_with_the_reason(field):
    with pytest.raises(ValidationError, match=r"lone surrogate U\+D800 .*decode the source"):
        if field == "content":
            Message(role="user", content="ab\ud800")
        else:
            asked(data={"answer": "\ud800"})


def test_the_same_content_has_the_same_id_whatever_its_origin():
    given_ = asked("x", data={"a": 1, "b": 2})
    written = asked("x", data={"b": 2, "a": 1}, parent="p", method="in-depth", by="m", born=3)
    assert given_.id == written.id
    assert len(given_.id) == 20


@pytest.mark.parametrize("other", [asked("y"), asked("x", data={"a": 1})])
def test_other_content_has_another_id(other):
    assert other.id != asked("x").id


def test_a_stored_id_is_computed_again_and_never_trusted():
    line = asked("x").model_dump_json().replace(asked("x").id, "0" * 20)
    assert Prompt.model_validate_json(line).id == asked("x").id


def test_unknown_keys_are_refused_and_records_do_not_change():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Response(text="x", logprob=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        asked().born = 3


def test_a_rollout_needs_a_reward_for_each_response_finite_or_missing():
    one = Response(text="x")
    with pytest.raises(ValidationError, match="1 rewards for 2 responses"):
        Rollout(prompt=asked(), responses=(one, one), rewards=(1.0,), policy="p", round=0)
    with pytest.raises(ValidationError, match="infinite or NaN"):
        Rollout(prompt=asked(), responses=(one,), rewards=(float("nan"),), policy="p", round=0)


def test_a_response_needs_a_logprob_for_each_token():
    with pytest.raises(ValidationError, match="1 logprobs for 2 tokens"):
        Response(text="x", tokens=(1, 2), logprobs=(-0.5,))
    with pytest.raises(ValidationError, match="1 logprobs for 0 tokens"):
        Response(text="x", logprobs=(-0.5,))


def test_a_child_has_messages_or_a_flaw():
    with pytest.raises(ValidationError, match="without messages"):
        Child(parent="p", method="m", by="b")
    assert Child(parent="p", method="m", by="b", flaw="refusal", raw="I cannot").flaw == "refusal"


def test_a_child_grows_into_a_prompt_that_remembers_where_it_comes_from():
    child = Child(
        parent="p", messages=asked("y").messages, data={"a": 1}, method="m", change="+ y", by="b"
    )
    prompt = child.grown(4)
    assert (prompt.parent, prompt.method, prompt.change, prompt.by) == ("p", "m", "+ y", "b")
    assert (prompt.born, prompt.id, prompt.data) == (4, child.id, {"a": 1})
    assert Child.model_validate_json(child.model_dump_json()) == child


def test_a_tie_makes_no_pair():
    with pytest.raises(ValidationError, match="greater than 0"):
        Pair(prompt=asked(), chosen=Response(text="a"), rejected=Response(text="b"), margin=0.0)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_tokens": 0}]
)
def test_sampling_outside_its_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        Sampling(**wrong)


def test_what_is_no_object_is_no_record():
    with pytest.raises(ValidationError):
        Prompt.model_validate("not an object")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_hold_json_values_only_so_that_an_id_survives_a_file(value):
    with pytest.raises(ValidationError, match="NaN or infinity is no JSON value; write null"):
        asked(data={"answer": value})


def test_a_flaw_says_something_and_a_child_has_a_writer():
    with pytest.raises(ValidationError):
        Child(parent="p", method="m", by="b", flaw="")
    with pytest.raises(ValidationError):
        Child(parent="p", messages=asked().messages, method="m", by="")
