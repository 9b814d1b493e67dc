"""`eva playground`: the laptop world; make its model, or watch the arms of the game compete."""

import os
from pathlib import Path
from typing import Annotated

import typer

from eva import recipe as recipes
from eva import study
from eva.cli.bars import Bars
from eva.cli.out import plain
from eva.cli.report import write_report
from eva.extras import extra

app = typer.Typer(
    help="The laptop world: a tiny transformer and a language of constraints.",
    no_args_is_help=True,
)


@app.command()
def sft(
    out: Annotated[Path, typer.Argument(help="The folder for theta_0.")],
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of 64 demonstrations.")] = 8000,
) -> None:
    """Make theta_0 by supervised fine-tuning on mixed-quality demonstrations; minutes on a CPU."""
    with extra("hf", "eva playground sft"):
        from eva.playground import sft as training
    console = plain()
    with Bars(console) as bars:
        training.sft(out, seed=seed, steps=steps, progress=bars.tell)
    console.print(f"theta_0: {out}")


ARMS = ["playground-static", "playground-new", "playground-eva"]
METRICS = [
    f"{name}/{mode}"
    for name in ("hard", "x0")
    for mode in ("sampled/reward", "sampled/win_rate", "sampled/accuracy", "greedy/accuracy")
]


@app.command()
def demo(
    home: Annotated[Path, typer.Argument(help="The folder for the runs.")] = Path("runs/demo"),
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable.")] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", help="A recipe; the last one is compared to each of the others."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
) -> None:
    """Play the arms of the game side by side, print the table, draw the report."""
    chosen, drawn = arms or ARMS, seeds or [1]
    cells = study.cells(chosen, drawn, home)
    out = plain()
    out.print(f"{', '.join(chosen)}: {len(cells)} runs of {_rounds(chosen[0])} rounds in {home}")
    with Bars(out) as bars:
        study.play(
            cells,
            jobs or os.cpu_count() or 1,
            lambda cell, t: bars.tell(cell.name, t, _rounds(cell.arm)),
        )
    common = study.common_metrics(cells)
    metrics = [name for name in METRICS if name in common] or common
    for line in study.markdown(study.rows(cells, metrics, chosen[-1]), metrics):
        out.print(line)
    note = "one seed, not evidence" if len(drawn) == 1 else f"{len(drawn)} seeds, mean ± s.e."
    out.print(f"{note}; evidence is a study: eva playground demo --seed 1 --seed 2 --seed 3 ...")
    target = write_report([cell.path for cell in cells if cell.seed == drawn[0]], home)
    out.print(f"report: {target.resolve()}")


def _rounds(recipe: str) -> int:
    return recipes.load(recipe).rounds
