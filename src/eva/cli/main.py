"""`eva`: the verbs, and how errors reach a person.

An error is one sentence on standard error. Exit codes: 2 for a wrong recipe or command, 1 for a run
that failed, 130 for one that was interrupted; `--debug` shows the traceback too.
"""

import logging
import sys
import traceback

import typer

from eva import __version__
from eva.cli import check, export, new, play, report, serve, show, study
from eva.cli.out import STOPPED
from eva.cli.playground import app as playground
from eva.errors import EvaError, RecipeError
from eva.processes import collect_seldom

app = typer.Typer(
    name="eva",
    help="Open-ended post-training: the prompts evolve with the model that trains on them.",
    epilog="Add --debug to any verb for a traceback. Start with: eva run toy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("new")(new.new)
app.command("check")(check.check)
app.command("run")(play.run)
app.command("study")(study.study)
app.command("show")(show.show)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.add_typer(playground, name="playground")


@app.command("version")
def version() -> None:
    """Print the version of eva."""
    print(__version__)  # noqa: T201  # the command line prints


def main() -> None:
    """Run the command line; the console script of the package."""
    collect_seldom()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    logging.captureWarnings(True)
    told = logging.StreamHandler()  # what a person at the terminal should not have to look up
    told.setFormatter(logging.Formatter("eva: %(message)s"))
    logging.getLogger("eva.serving").addHandler(told)
    logging.raiseExceptions = False  # a log that cannot be written must not bury the reason
    try:
        app()
    except EvaError as error:
        _say(error, debug)
        sys.exit(2 if isinstance(error, RecipeError) else 1)
    except Exception as error:  # noqa: BLE001  # the top: nobody should meet a traceback unasked
        if "KeyboardInterrupt" in "".join(traceback.format_exception(error)):
            # Ctrl-C inside a compiled library comes out as that library's own error.
            sys.stderr.write(f"{STOPPED}\n")
            sys.exit(130)
        _say(error, debug)
        sys.exit(1)


def _say(error: Exception, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    known = str(error) if isinstance(error, EvaError) else f"{type(error).__name__}: {error}"
    hint = "" if isinstance(error, EvaError) else " (a fault of eva itself: please report it)"
    sys.stderr.write(f"eva: {known}{hint}\n")
