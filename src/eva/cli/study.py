"""`eva study`: arms on the same seeds, tuned alike, at equal budget; from a file to a page."""

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from eva.cli.out import STOPPED, plain
from eva.cli.play import AsJson
from eva.cli.report import write_report
from eva.errors import EvaError, RunDirError
from eva.extras import extra
from eva.findings import Findings, Measured, Place, Row, mean_told, places, read_findings, told
from eva.store import write_whole
from eva.study import Far, Plan, Played, Study, grid, load, planned, run

Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0 is one per core.")]


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file.")],
    directory: Annotated[
        Path | None,
        typer.Argument(help="The study directory; default runs/<name of the study>."),
    ] = None,
    jobs: Jobs = 0,
    results: Annotated[
        Path | None,
        typer.Option(help="A folder for the results page: <name>.md and its figures."),
    ] = None,
    as_json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the study, count its runs, play nothing.")
    ] = False,
) -> None:
    """Play a study; the same command goes on with one that was stopped."""
    chosen, out = load(file), plain()
    home = directory or Path("runs") / chosen.name
    check_is_apart(file, home)
    counts = counted(chosen, planned(chosen, home, file.parent))
    if dry_run:
        out.print(json.dumps(counts) if as_json else f"{chosen.name}: {in_words(counts)}")
        return
    with extra("report", "the report"):  # said now, not after hours
        import eva.report.figures
        import eva.report.studied  # noqa: F401
    if not as_json:
        out.print(f"{chosen.name}: {in_words(counts)}; in {home}")
    words = ["eva", "study", file, *([directory] if directory else [])]
    words += ["--results", results] if results else []
    command = shlex.join(map(str, words))
    cells = played(chosen, home, here=file.parent, jobs=jobs, command=command, as_json=as_json)
    findings, _ = read_findings(home)
    if not as_json:
        for line in (*lines(findings), *unmeasured(chosen, findings)):
            out.print(line)
    try:
        pages = {"report": str(write_report([home], home))}
        pages |= {"results": str(write_results(home, results))} if results else {}
    except EvaError as error:
        check_all_ended(cells, f". Besides, {error}")
        raise
    out.print(json.dumps(pages) if as_json else "\n".join(f"{k}: {v}" for k, v in pages.items()))
    check_all_ended(cells)


def played(
    study: Study, home: Path, *, here: Path, jobs: int, command: str, as_json: bool = False
) -> list[Played]:
    """Play a study with a bar; the cells in the order in which they ended."""
    out, cells = plain(), []
    try:
        with Bar(out) as bar:
            ends = run(
                study, home, here=here, jobs=jobs or cores(), command=command, watch=bar.tell
            )
            for cell in ends:
                cells.append(cell)
                if as_json:
                    out.print(json.dumps(ended(cell)))
                elif cell.failed:
                    out.print(f"failed: {cell.within}: {cell.failed}")
    except KeyboardInterrupt as error:
        Console(stderr=True).print(STOPPED)
        raise typer.Exit(130) from error
    return cells


def check_is_apart(file: Path, home: Path) -> None:
    """Refuse a study directory that would write over the study file.

    Raises:
        RunDirError: The file is the one that the directory keeps.
    """
    kept = home / "study.yaml"
    if kept.exists() and kept.samefile(file):
        raise RunDirError(
            f"{file} lies where the study would write its own study.yaml; name another folder "
            f"than {home}, or another file"
        )


def check_all_ended(cells: Iterable[Played], besides: str = "") -> None:
    """Say so at the end where cells failed.

    Args:
        cells: All that ended.
        besides: What else went wrong.

    Raises:
        EvaError: How many, the first of them, and its reason.
    """
    every = list(cells)
    failed = [cell for cell in every if cell.failed]
    if failed:
        raise EvaError(
            f"{len(failed)} of {len(every)} runs have no result and are left out of the tables, "
            f"e.g. {failed[0].within}: {failed[0].failed}. The same command tries them "
            f"again{besides}"
        )


def write_results(home: Path, folder: Path) -> Path:
    """Write the results page of a finished study and its figures; returns where the page stands."""
    with extra("report", "the results page"):
        from eva.report.figures import pictures
    from eva.study.page import markdown

    findings, made = read_findings(home)
    assert made is not None
    for name, picture in pictures(findings).items():
        write_whole(folder / name, [picture])
    target = folder / f"{findings.name}.md"
    write_whole(target, [markdown(findings, made).encode()])
    return target


def cores() -> int:
    """How many processes this one may run side by side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- what is said


def counted(study: Study, plan: Plan) -> dict[str, int]:
    """How much a study plays."""
    where = {tuple(cell.place.items()) for cell in plan.tabled}
    tried = {len(grid(study, cell.place)) for cell in plan.tabled}
    return {
        "arms": len(study.arms),
        "places": len(where),
        "settings": max(tried) if study.tune else 0,
        "tuning_runs": len(plan.tuning),
        "table_runs": len(plan.tabled),
        "rounds": plan.rounds,
    }


def in_words(counts: dict[str, int]) -> str:
    """How much a study plays, in a sentence."""
    arms, where, settings = counts["arms"], counts["places"], counts["settings"]
    said = f"{arms} arm{'s' * (arms > 1)}"
    said += f" in {where} places" if where > 1 else ""
    said += f" with {settings} setting{'s' * (settings > 1)} each" if settings else ""
    runs = f"{counts['table_runs']} runs"
    runs += f" after {counts['tuning_runs']} to tune" if counts["tuning_runs"] else ""
    return f"{said}: {runs}, {counts['rounds']} rounds in all"


def ended(cell: Played) -> dict[str, object]:
    """A cell that ended, for machines."""
    return {
        "cell": cell.within,
        "use": cell.use,
        "arm": cell.arm,
        "place": cell.place,
        "setting": cell.setting,
        "seed": cell.seed,
        "failed": cell.failed,
    }


def lines(findings: Findings) -> Iterator[str]:
    """What was found, for a terminal: what was unequal, a table for each place, the claims."""
    yield from findings.unequal
    for place in places(findings):
        yield from ([told(place)] if place else [])
        yield from table(findings, place)
    for sentence in (*(verdict.sentence for verdict in findings.verdicts), *findings.unjudged):
        yield f"- {sentence}"


def unmeasured(study: Study, findings: Findings) -> list[str]:
    """A sentence if no run measured some of what the study tables and draws: such runs failed."""
    known = {metric for row in findings.rows for metric in row.values}
    known |= {line.metric for line in findings.lines}
    gone = [name for name in dict.fromkeys((*study.metrics, *study.curves)) if name not in known]
    return [f"measured by no run: {', '.join(gone)}"] if gone else []


def table(findings: Findings, place: Place) -> Iterator[str]:
    """The lines of the Markdown table of a place."""
    yield "| arm | " + " | ".join(findings.metrics) + " |"
    yield "|---" * (len(findings.metrics) + 1) + "|"
    for row in findings.rows:
        if row.place == place:
            values = [shown(row.values.get(metric)) for metric in findings.metrics]
            yield f"| {named(row)} | " + " | ".join(values) + " |"


def named(row: Row) -> str:
    """The arm of a row, or the two arms of a difference."""
    return f"{row.arm} - {row.minus}" if row.minus else row.arm


def shown(value: Measured | None) -> str:
    """A mean with its standard error, as the page has it."""
    return "-" if value is None else mean_told(value)


class Bar:
    """One bar for the whole study, with the time left; silent unless `out` is a terminal."""

    def __init__(self, out: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def tell(self, far: Far) -> None:
        """Draw how far the study is."""
        what = {"prepare": "folders", "play": "rounds"}[far.stage]
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=far.total, left="")
        left = "" if far.left is None else f"{clock(far.left)} left"
        self._progress.update(self._tasks[what], completed=far.done, total=far.total, left=left)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
