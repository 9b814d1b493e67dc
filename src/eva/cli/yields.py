"""`eva show RUN --yields`: what became of the children, and how varied the newborn are."""

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from eva.cli.out import inert
from eva.diversity import diversity
from eva.reading import Round, Run
from eva.records import Child, Prompt
from eva.yields import Yield, all_gates, yields

MEASURES = ("distinct_2", "nearest", "compression", "words")
"""Measures of diversity, as docs/metrics.md describes them."""


def show_yields(run: Run, out: Console, *, as_json: bool) -> None:
    """Print the yields of a run, and the diversity of pool and newborn prompts by round."""
    children = [child for played in run.rounds for child in played.children]
    rounds = [played for played in run.rounds if played.children]
    if as_json:
        out.print_json(json.dumps(_for_machines(run, children, rounds)))
    elif not children:
        out.print(f"{run.label}: no children were written", markup=False)
    else:
        _print_yields(yields(children), out)
        _print_diversity(rounds, out)


def _for_machines(run: Run, children: Sequence[Child], rounds: Sequence[Round]) -> JsonValue:
    by_round: list[JsonValue] = [
        {"round": r.number, "pool": {**diversity(r.pool)}, "born": {**diversity(r.born)}}
        for r in rounds
    ]
    return {"name": run.label, "yields": _rows(children), "diversity": by_round}


def _rows(children: Sequence[Child]) -> list[JsonValue]:
    return [
        {
            "method": row.method,
            "by": row.by,
            "written": row.written,
            "refused": {**row.refused},
            "born": row.born,
            "share": row.share,
        }
        for row in yields(children)
    ]


def _print_yields(rows: Sequence[Yield], out: Console) -> None:
    gates = all_gates(rows)
    table = Table(title="what became of the children")
    for name in ("operator", "by"):
        table.add_column(name, overflow="fold", min_width=len("in-breadth"))
    for name in ("written", "born", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("refused", overflow="fold")
    for row in rows:
        who = (inert(row.method), inert(row.by))
        table.add_row(*who, *_counts(row.written, row.born), _listed(row.refused, gates))
    total = {gate: sum(row.refused.get(gate, 0) for row in rows) for gate in gates}
    table.add_section()
    written, born = sum(row.written for row in rows), sum(row.born for row in rows)
    table.add_row("all", "", *_counts(written, born), _listed(total, gates))
    out.print(table, markup=False)


def _counts(written: int, born: int) -> tuple[str, str, str]:
    return str(written), str(born), f"{born / written:.0%}"


def _listed(refused: Mapping[str, int], gates: Sequence[str]) -> str:
    """How many each gate refused, where it refused any."""
    return ", ".join(f"{gate} {refused[gate]}" for gate in gates if refused.get(gate))


def _print_diversity(rounds: Sequence[Round], out: Console) -> None:
    table = Table("round", "prompts", "number", title="how varied they are (docs/metrics.md)")
    for name in MEASURES:
        table.add_column(name, justify="right", no_wrap=True)
    for played in rounds:
        kinds: tuple[tuple[str, Sequence[Prompt]], ...]
        kinds = (("pool", played.pool), ("born", played.born))
        for name, prompts in kinds:
            found = diversity(prompts)
            shown = [f"{found[key]:.2f}" if key in found else "-" for key in MEASURES]
            table.add_row(str(played.number), name, str(len(prompts)), *shown)
    out.print(table, markup=False)
