"""`eva report`: one self-contained HTML page of one or several runs, or of a study."""

from pathlib import Path
from typing import Annotated

import typer

from eva.cli.out import plain
from eva.errors import RunDirError
from eva.extras import extra
from eva.report.begun import PAGE, is_drawn, is_study
from eva.store import write_whole


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Run directories, several are compared; or one study directory."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The page; default report.html in the first directory."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also write the learning curves as an SVG.")
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write nothing; serve the page on 127.0.0.1 while it grows."),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --watch; 0 takes a free one.")
    ] = 0,
) -> None:
    """Draw runs or a study as one HTML file that needs no network; opens in any browser."""
    if watch:
        if out or picture:
            raise typer.BadParameter("--watch writes nothing; leave --out and --picture out")
        watch_pages(paths, port)
        return
    target = write_report(paths, out or paths[0], picture)
    plain().print(f"report: {target}")


def write_report(paths: list[Path], out: Path, picture: Path | None = None) -> Path:
    """Write the page (and the picture) of runs or of a study; returns where the page stands.

    With the page of a study, those of the runs that it kept whole are written into their folders,
    unless they are newer than all that they are drawn from.

    Raises:
        RunDirError: A folder is neither a run nor a study, or runs and studies are mixed.
    """
    with extra("report", "the report"):
        from eva.report import page, studied
    study = study_among(paths)
    target = out / PAGE if out.is_dir() else out
    if study is None:
        write_whole(target, [page.page(paths).encode()])
    elif picture:
        raise RunDirError("a study has several pictures; eva study writes them with --results")
    else:
        for run in studied.kept(study):
            if not is_drawn(run):
                write_whole(run / PAGE, [page.page([run]).encode()])
        write_whole(target, [studied.page(study, target.parent).encode()])
    if picture:
        write_whole(picture, [page.picture(paths).encode()])
    return target


def watch_pages(paths: list[Path], port: int) -> None:
    """Serve the page of runs or of a study until Ctrl-C.

    Raises:
        RunDirError: A folder is missing or holds something else, or runs and studies are mixed.
        BackEndError: The port is taken.
    """
    with extra("report", "the report"):
        from eva.report import watch
    out = plain()
    study_among(paths)
    with watch.server(paths, port) as server:
        out.print(f"watching at http://{watch.HOST}:{server.server_port}/ (Ctrl-C ends it)")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            out.print("stopped watching")


def study_among(paths: list[Path]) -> Path | None:
    """The one study that is to be drawn, or None if all are runs.

    Raises:
        RunDirError: Several studies, or a study among runs.
    """
    studies = [path for path in paths if is_study(path)]
    if studies and len(paths) > 1:
        raise RunDirError(
            f"{studies[0]} is a study, and a page shows runs or one study; name it alone"
        )
    return studies[0] if studies else None
