"""`eva run`: play a recipe, or go on with it where it stopped."""

import json
import shlex
from math import nan
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eva import recipe as recipes
from eva.cli.bars import Bars
from eva.cli.out import STOPPED, plain
from eva.cli.spent import print_spent
from eva.start import run_recipe

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the recipe: key.inner=value. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    directory: Annotated[
        Path | None,
        typer.Argument(help="The run directory; default runs/<name of the recipe>."),
    ] = None,
    overrides: Overrides = None,
    mirror: Annotated[
        str | None,
        typer.Option(help="A URL where a copy of the run directory is kept, e.g. s3://bucket/run."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a recipe; the same command goes on with a run that was stopped."""
    chosen = recipes.load(recipe, overrides or ())
    path = directory or Path("runs") / chosen.name
    out = plain()
    try:
        with Bars(out) as bars:
            here = recipes.found(recipe).parent
            played = run_recipe(chosen, path, here=here, progress=bars.tell, mirror=mirror)
            for t, metrics in played:
                line = line_of(t, chosen.rounds, metrics)
                out.print(json.dumps({"round": t, **metrics}) if as_json else line)
    except KeyboardInterrupt as error:
        Console(stderr=True).print(STOPPED)
        raise typer.Exit(130) from error
    if not as_json:
        _say_refused(path / "refused.jsonl", out)
        print_spent(path, out)
        place = shlex.quote(str(path))
        out.print(
            f"run directory {path}: look inside with eva show {place}, draw with eva report {place}"
        )


def _say_refused(path: Path, out: Console) -> None:
    """Prompts that could not be used should not be missed."""
    if path.exists():
        out.print(f"{path.read_bytes().count(bytes([10]))} given prompts were refused: see {path}")


def line_of(t: int, rounds: int, metrics: dict[str, float]) -> str:
    """One line of metrics: what the round trained on, and what its policy can do."""
    parts = [f"round {t}/{rounds}"]
    if "reward" in metrics:
        parts.append(
            f"lessons {metrics['reward']:.3f} spread {metrics['spread']:.3f} "
            f"usable {metrics['usable']:4.0%} words {metrics['words']:.1f}"
        )
    for key, value in metrics.items():
        name, _, rest = key.partition("/")
        if rest == "sampled/reward":
            greedy = metrics.get(f"{name}/greedy/reward", nan)
            parts.append(f"{name} {value:.3f} greedy {greedy:.3f}")
    return " | ".join(parts)
