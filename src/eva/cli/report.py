"""`eva report`: one self-contained HTML page of one or several runs."""

from pathlib import Path
from typing import Annotated

import typer

from eva.cli.out import plain
from eva.extras import extra
from eva.store import write_whole


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The page; default report.html in the first run directory."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also write the learning curves as an SVG.")
    ] = None,
) -> None:
    """Draw runs as one HTML file that needs no network; opens in any browser."""
    target = write_report(runs, out or runs[0], picture)
    plain().print(f"report: {target}")


def write_report(runs: list[Path], out: Path, picture: Path | None = None) -> Path:
    """Write the page (and the picture) of runs; returns where the page stands."""
    with extra("report", "the report"):
        from eva.report import page
    target = out / "report.html" if out.is_dir() else out
    write_whole(target, [page.page(runs).encode()])
    if picture:
        write_whole(picture, [page.picture(runs).encode()])
    return target
