"""`eva playground`: the laptop world; make its model, or watch the arms of the game compete."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eva import recipe as recipes
from eva.cli import study as studies
from eva.cli.bars import Bars
from eva.cli.out import plain
from eva.cli.report import write_report
from eva.errors import RecipeError
from eva.extras import extra
from eva.findings import read_findings
from eva.study import Study, checked_study

app = typer.Typer(
    help="The laptop world: a tiny transformer and a language of constraints.",
    no_args_is_help=True,
)


@app.command()
def sft(
    out: Annotated[Path, typer.Argument(help="The folder for theta_0.")],
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of 64 demonstrations.")] = 8000,
    corpus: Annotated[
        str, typer.Option(help="What is demonstrated: short, or broad (hard prompts too).")
    ] = "short",
) -> None:
    """Make theta_0 by supervised fine-tuning on mixed-quality demonstrations; minutes on a CPU."""
    with extra("hf", "eva playground sft"):
        from eva.playground import sft as training
    console = plain()
    with Bars(console) as bars:
        training.sft(out, seed=seed, steps=steps, corpus=corpus, progress=bars.tell)
    console.print(f"theta_0: {out}")


ARMS = ["playground-static", "playground-new", "playground-eva"]
MEASURES = {
    "sampled/reward": False,
    "sampled/win_rate": False,
    "sampled/accuracy": True,
    "greedy/accuracy": True,
}
"""What the table says of each held-out set, and whether `evaluate.solved_at` defines it."""


@app.command()
def demo(
    home: Annotated[Path, typer.Argument(help="The folder for the runs.")] = Path("runs/demo"),
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable.")] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", help="A recipe; the last one is compared to each of the others."),
    ] = None,
    jobs: studies.Jobs = 0,
) -> None:
    """Play the arms of the game side by side, print the table, draw the report."""
    chosen, drawn = arms or ARMS, seeds or [1]
    study = _study(chosen, drawn)
    here, out = recipes.found(chosen[-1]).parent, plain()
    rounds = recipes.load(chosen[0]).rounds
    out.print(f"{', '.join(chosen)}: {len(chosen) * len(drawn)} runs of {rounds} rounds in {home}")
    cells = studies.played(study, home, here=here, jobs=jobs, command=_command(home, arms, drawn))
    for line in studies.table(read_findings(home)[0], {}):
        out.print(line)
    note = "one seed, not evidence" if len(drawn) == 1 else f"{len(drawn)} seeds, mean ± s.e."
    out.print(f"{note}; more seeds: --seed 1 --seed 2 ...; tuned arms and intervals: eva study")
    first = [cell.path for cell in cells if cell.seed == drawn[0] and cell.result]
    if first:
        out.print(f"report: {write_report(first, home).resolve()}")
    studies.check_all_ended(cells)


def _study(arms: Sequence[str], seeds: Sequence[int]) -> Study:
    """The arms as a study: each a recipe, as it is."""
    files = {Path(arm).name.removesuffix(".yaml"): recipes.found(arm).resolve() for arm in arms}
    if len(files) < len(arms):
        raise RecipeError(
            f"two of the arms {', '.join(arms)} have one name; give each its own file name"
        )
    held_out = recipes.load(arms[-1]).evaluate
    if held_out is None:
        raise RecipeError(f"{arms[-1]} measures nothing: give it evaluate, or name another arm")
    is_solved = held_out.solved_at is not None
    fields = {
        "name": "demo",
        "question": "What does each arm of the game end with?",
        "base": str(files[next(reversed(files))]),
        "arms": {name: {"base": str(file)} for name, file in files.items()},
        "seeds": list(seeds),
        "against": next(reversed(files)),
        "metrics": [
            f"{name}/{measure}"
            for name in held_out.sets
            for measure, needs_solved in MEASURES.items()
            if is_solved or not needs_solved
        ],
    }
    return checked_study(fields, "eva playground demo")


def _command(home: Path, arms: Sequence[str] | None, seeds: Sequence[int]) -> str:
    """What plays the demo again."""
    words = ["eva", "playground", "demo", str(home)]
    words += [word for seed in seeds for word in ("--seed", str(seed))]
    return shlex.join([*words, *(word for arm in arms or () for word in ("--arm", arm))])
