"""Pairs and prompts as rows of the files that other trainers read."""

import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from eva.records import Message, Pair, Prompt
from eva.store import write_whole

Row: TypeAlias = dict[str, JsonValue]
"""One line of a file."""


class Form(StrEnum):
    """For whom."""

    eva = "eva"
    trl = "trl"
    verl = "verl"
    openrlhf = "openrlhf"


def pair_rows(pairs: Iterable[Pair], form: Form) -> list[Row]:
    """Preference pairs as rows, in their order."""
    return [PAIRS[form](pair) for pair in pairs]


def prompt_rows(prompts: Iterable[Prompt], form: Form) -> list[Row]:
    """Prompts as rows, in their order."""
    return [PROMPTS[form](prompt) for prompt in prompts]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, whole; see `eva.store.write_whole`."""
    write_whole(path, (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def _chat(messages: Iterable[Message]) -> list[JsonValue]:
    return [{"role": m.role, "content": m.content} for m in messages]


def _answer(text: str) -> list[JsonValue]:
    return [{"role": "assistant", "content": text}]


def _eva_pair(pair: Pair) -> Row:
    return pair.model_dump(mode="json")


def _trl_pair(pair: Pair) -> Row:
    """TRL's conversational preference format with an explicit prompt.

    TRL reads no further columns. The finishes tell other programs which answers were cut: a
    trainer that ends those teaches the model to stop there.
    """
    return {
        "prompt": _chat(pair.prompt.messages),
        "chosen": _answer(pair.chosen.text),
        "rejected": _answer(pair.rejected.text),
        "margin": pair.margin,
        "prompt_id": pair.prompt.id,
        "chosen_finish": pair.chosen.finish,
        "rejected_finish": pair.rejected.finish,
    }


def _openrlhf_pair(pair: Pair) -> Row:
    """OpenRLHF's --data.prompt_key/chosen_key/rejected_key with a chat template applied by it."""
    chat = _chat(pair.prompt.messages)
    return {
        "prompt": chat,
        "chosen": [*chat, *_answer(pair.chosen.text)],
        "rejected": [*chat, *_answer(pair.rejected.text)],
        "margin": pair.margin,
    }


def _eva_prompt(prompt: Prompt) -> Row:
    return prompt.model_dump(mode="json")


def _trl_prompt(prompt: Prompt) -> Row:
    return {**prompt.data, "prompt": _chat(prompt.messages), "prompt_id": prompt.id}


def _verl_prompt(prompt: Prompt) -> Row:
    """The columns that verl's RLHF data set reads; the prompt's data goes along as extra_info."""
    truth = prompt.data.get("answer", "")
    return {
        "data_source": prompt.by,
        "prompt": _chat(prompt.messages),
        "ability": prompt.method,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {
            "id": prompt.id,
            "parent": prompt.parent or "",
            "born": prompt.born,
            "data": json.dumps(prompt.data, sort_keys=True),
        },
    }


PAIRS: dict[Form, Callable[[Pair], Row]] = {
    Form.eva: _eva_pair,
    Form.trl: _trl_pair,
    Form.verl: _trl_pair,
    Form.openrlhf: _openrlhf_pair,
}
PROMPTS: dict[Form, Callable[[Prompt], Row]] = {
    Form.eva: _eva_prompt,
    Form.trl: _trl_prompt,
    Form.verl: _verl_prompt,
    Form.openrlhf: _trl_prompt,
}
