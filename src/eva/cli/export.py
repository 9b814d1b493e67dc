"""`eva export`: pairs or prompts of a run, in the form that another trainer reads."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from eva.cli.out import plain
from eva.errors import RunDirError
from eva.export import Form, Row, pair_rows, prompt_rows, write_rows
from eva.extras import extra
from eva.pairs import best_worst_pairs
from eva.records import Rollout
from eva.store import read_records, write_whole


class What(StrEnum):
    """What is exported."""

    pairs = "pairs"
    prompts = "prompts"


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
        rows = pair_rows(found.pairs, form)
        left_out = f"; left out: {found.ties} ties, {found.missing} with missing rewards"
    else:
        distinct = {lesson.prompt.id: lesson.prompt for lesson in lessons}
        rows = prompt_rows(distinct.values(), form)
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
        write_rows(out, rows)
    else:
        raise typer.BadParameter(f"{out}: expected a name that ends in .jsonl or .parquet")


def _solid(value: JsonValue) -> JsonValue:
    """The value without empty objects, which Parquet cannot hold: they become null."""
    if isinstance(value, dict):
        return {key: _solid(inner) for key, inner in value.items()} or None
    return [_solid(inner) for inner in value] if isinstance(value, list) else value
