"""`eva export`: pairs or prompts of a run, in the form that another trainer reads."""

import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import JsonValue

from eva.build import extra
from eva.cli.out import plain
from eva.errors import RunDirError
from eva.pairs import best_worst_pairs
from eva.records import Message, Pair, Prompt, Rollout
from eva.store import read_records, write_whole

Row: TypeAlias = dict[str, JsonValue]


class What(StrEnum):
    """What is exported."""

    pairs = "pairs"
    prompts = "prompts"


class Form(StrEnum):
    """For whom."""

    eva = "eva"
    trl = "trl"
    verl = "verl"
    openrlhf = "openrlhf"


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    what: Annotated[What, typer.Argument(help="Preference pairs, or the prompts trained on.")],
    out: Annotated[Path, typer.Option("--out", help="The file: .jsonl or .parquet.")],
    form: Annotated[Form, typer.Option("--for", help="The trainer that reads it.")] = Form.eva,
    rounds: Annotated[
        list[int] | None, typer.Option("--round", help="Only this round. Repeatable.")
    ] = None,
) -> None:
    """Write the lessons of a run as preference pairs, or their prompts, for another trainer."""
    lessons = _lessons(run, rounds)
    if what is What.pairs:
        found = best_worst_pairs(lessons)
        rows = [PAIRS[form](pair) for pair in found.pairs]
        left_out = f"; left out: {found.ties} ties, {found.missing} with missing rewards"
    else:
        distinct = {lesson.prompt.id: lesson.prompt for lesson in lessons}
        rows = [PROMPTS[form](prompt) for prompt in distinct.values()]
        left_out = ""
    _write(out, rows)
    plain().print(f"{len(rows)} {what.value}: {out}{left_out}")


def _lessons(run: Path, rounds: Iterable[int] | None) -> list[Rollout]:
    wanted = None if rounds is None else {f"{t:03d}" for t in rounds}
    files = sorted(run.glob("rounds/*/lessons.jsonl"), key=lambda f: int(f.parent.name))
    chosen = [f for f in files if wanted is None or f.parent.name in wanted]
    if not chosen:
        there = ", ".join(f.parent.name for f in files) or "none"
        raise RunDirError(f"{run} has no lessons of that round; rounds with lessons: {there}")
    return [rollout for file in chosen for rollout in read_records(file, Rollout)]


def _chat(messages: Iterable[Message]) -> list[JsonValue]:
    return [{"role": m.role, "content": m.content} for m in messages]


def _answer(text: str) -> list[JsonValue]:
    return [{"role": "assistant", "content": text}]


def _eva_pair(pair: Pair) -> Row:
    return pair.model_dump(mode="json")


def _trl_pair(pair: Pair) -> Row:
    """TRL's conversational preference format with an explicit prompt."""
    return {
        "prompt": _chat(pair.prompt.messages),
        "chosen": _answer(pair.chosen.text),
        "rejected": _answer(pair.rejected.text),
        "margin": pair.margin,
        "prompt_id": pair.prompt.id,
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


def _write(out: Path, rows: list[Row]) -> None:
    if out.suffix == ".parquet":
        with extra("hf", "a .parquet file"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        sink = pa.BufferOutputStream()
        try:
            pq.write_table(pa.Table.from_pylist([_solid(row) for row in rows]), sink)
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise RunDirError(f"Parquet cannot hold these rows ({reason}); write .jsonl") from error
        write_whole(out, [sink.getvalue().to_pybytes()])
    elif out.suffix == ".jsonl":
        write_whole(out, (json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows))
    else:
        raise typer.BadParameter(f"{out}: expected a name that ends in .jsonl or .parquet")


def _solid(value: JsonValue) -> JsonValue:
    """The value without empty objects, which Parquet cannot hold: they become null."""
    if isinstance(value, dict):
        return {key: _solid(inner) for key, inner in value.items()} or None
    return [_solid(inner) for inner in value] if isinstance(value, list) else value
