"""The rows that other trainers read."""

import json
from pathlib import Path

import pytest

from eva.export import Form, pair_rows, prompt_rows, write_rows
from eva.records import Message, Pair, Prompt, Response

PROMPT = Prompt(messages=(Message(role="user", content="q\u2028"),), data={"answer": "4"})
PAIR = Pair(
    prompt=PROMPT,
    chosen=Response(text="good", tokens=(1, 2)),
    rejected=Response(text="", finish="length"),
    margin=0.5,
)
CHAT = [{"role": "user", "content": "q\u2028"}]


@pytest.mark.parametrize("form", [Form.trl, Form.verl])
def test_a_pair_for_trl_has_its_prompt_apart_and_says_what_was_cut(form: Form) -> None:
    assert pair_rows([PAIR], form) == [
        {
            "prompt": CHAT,
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": ""}],
            "margin": 0.5,
            "prompt_id": PROMPT.id,
            "chosen_finish": "stop",
            "rejected_finish": "length",
        }
    ]


def test_a_pair_for_openrlhf_repeats_the_prompt() -> None:
    (row,) = pair_rows([PAIR], Form.openrlhf)
    assert row["chosen"] == [*CHAT, {"role": "assistant", "content": "good"}]


def test_a_pair_for_eva_is_the_record() -> None:
    (row,) = pair_rows([PAIR], Form.eva)
    assert Pair.model_validate(row) == PAIR


def test_a_prompt_brings_its_data() -> None:
    (eva,), (trl,), (verl,) = (
        prompt_rows([PROMPT], form) for form in (Form.eva, Form.trl, Form.verl)
    )
    assert Prompt.model_validate(eva) == PROMPT
    assert trl == {"answer": "4", "prompt": CHAT, "prompt_id": PROMPT.id}
    assert verl["reward_model"] == {"style": "rule", "ground_truth": "4"}


def test_a_row_is_one_line_whatever_its_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"text": "a\u2028b\nc"}, {}])
    lines = (tmp_path / "rows.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"text": "a\u2028b\nc"}, {}]
