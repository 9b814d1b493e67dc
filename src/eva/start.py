"""Start a run of a recipe, or go on with one where it stopped."""

import logging
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import JsonValue

from eva import build, loop
from eva.config import Recipe
from eva.mirror import mirrored
from eva.protocols import Progress
from eva.recipe import as_yaml, digest, must_agree
from eva.store import attempt_log, cannot_write, held

log = logging.getLogger(__name__)

NAMED = ("eva-rlhf", "numpy", "torch", "transformers", "accelerate", "datasets")
"""Packages whose versions may move results."""
CACHE = "cache"
"""The folder of a run directory where paid answers are kept."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def run_recipe(
    recipe: Recipe,
    path: Path,
    *,
    here: Path,
    progress: Progress = quiet,
    mirror: str | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Play a recipe in the folder `path`, from where it stopped; yields metrics by round.

    Args:
        recipe: What to play.
        path: The run directory; made if it is missing.
        here: The folder of the recipe, where its own Python functions are looked for.
        progress: Told how far each stage is.
        mirror: Where a copy of the run directory is kept; see eva.mirror.

    Raises:
        EvaError: One sentence that says what to do; see eva.errors.
    """
    game = build.game(recipe, here, path / CACHE)
    known = facts(recipe) | {"inputs": build.inputs(game, recipe)}
    with (
        mirrored(path, mirror),
        held(path, as_yaml(recipe), known, agree=must_agree, progress=progress) as folder,
        logged(attempt_log(path)),
    ):
        log.info("facts %s", known)
        for refused in game.refused:
            log.warning("refused prompt %s: %s", refused.prompt.id, refused.flaw)
        yield from loop.run(game, folder)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what eva logs to a file, with times, and the error that ends the attempt."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger = logging.getLogger("eva")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        logger.error("stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()


def facts(recipe: Recipe) -> dict[str, JsonValue]:
    """What else may move results: versions, commit, host, and the digest of the recipe."""
    return {
        "python": platform.python_version(),
        "versions": {name: found for name in NAMED if (found := _version(name))},
        "commit": _commit(),
        "host": f"{platform.node()} {platform.system()} {platform.machine()}",
        "digest": digest(recipe),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of eva itself where it runs from its checkout, marked if files were changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
