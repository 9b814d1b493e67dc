"""The cells of a study are played, each in a process of its own; one that fails stops no other.

A cell that has its `result.json` is done and never played again. One that was killed goes on where
it stopped, byte for byte, as every run does.
"""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from eva.config import Recipe
from eva.errors import RunDirError
from eva.named import called
from eva.parts import PythonCall
from eva.parts.learners import Online
from eva.recipe import as_yaml, must_agree, parsed
from eva.start import run_recipe
from eva.study.forks import Task, Tell, forked
from eva.study.plan import Played, Study
from eva.study.results import keep_result, known_result, prune, read_result

Told: TypeAlias = Callable[[Played, int], None]
"""Told each round t that a cell has closed; the last one is the evaluation of the last theta."""


def play(
    study: Study,
    cells: Sequence[Played],
    told: Told,
    *,
    here: Path,
    jobs: int,
    preload: Sequence[str] = (),
) -> Generator[Played, None, None]:
    """Play cells in up to `jobs` processes; yields each with what became of it, as it ends.

    Args:
        study: The study: what is measured beside the metrics, which run directories are kept.
        cells: What to play, in this order; those that are done come first.
        told: Told each round.
        here: The folder of the study file, where its own Python functions are looked for.
        jobs: Processes side by side.
        preload: What cells need that takes long to import; see `heavy`.

    Raises:
        RunDirError: A run directory was made by another recipe: names it.
    """
    known = [replace(cell, result=known_result(cell.path), failed=None) for cell in cells]
    for cell in known:
        must_go_on(cell)
    for cell in known:
        if cell.result:
            if cell.result.is_whole is False:  # for a kill may have come between
                prune(cell.path)
            yield cell
    missing = {cell.path / "logs" / "study.log": cell for cell in known if not cell.result}
    tasks = [
        Task(play_cell, (cell.recipe, cell.path, here, study.probe, is_kept(study, cell)), log)
        for log, cell in missing.items()
    ]
    for news in forked(tasks, jobs, preload):
        cell = missing[news.task.log]
        if news.told is not None:
            told(cell, news.told)
        elif news.failed:
            yield replace(cell, failed=news.failed)
        else:
            yield replace(cell, result=known_result(cell.path))


def play_cell(
    tell: Tell, recipe: Recipe, path: Path, here: Path, probe: PythonCall | None, is_whole: bool
) -> None:
    """Play one cell to its end, in this process, and write its result.

    Args:
        tell: Told each round.
        recipe: What to play.
        path: Its run directory.
        here: The folder of the study file.
        probe: What else is measured at its end.
        is_whole: Whether the run directory is kept whole.
    """
    began, used = time.monotonic(), time.process_time()
    measure = called(probe, here) if probe else None
    for t, _ in run_recipe(recipe, path, here=here):
        tell(t)
    cpu_seconds, wall_seconds = time.process_time() - used, time.monotonic() - began
    result = read_result(path, cpu_seconds, wall_seconds, measure)
    keep_result(path, result.model_copy(update={"is_whole": is_whole}))
    if not is_whole:
        prune(path)


def is_kept(study: Study, cell: Played) -> bool:
    """Whether the run directory of a cell that ends now is kept whole."""
    is_first = cell.use == "table" and cell.seed == study.seeds[0]
    return study.keep == "all" or (study.keep == "first" and is_first)


def must_go_on(cell: Played) -> None:
    """Refuse a cell whose run directory was made by another recipe.

    Raises:
        RunDirError: Names the cell, and the keys that differ.
    """
    file = cell.path / "recipe.yaml"
    if not file.exists():
        return
    standing, coming = file.read_text("utf-8"), as_yaml(cell.recipe)
    if standing == coming:
        return
    try:
        must_agree(standing, coming)
    except RunDirError as error:
        raise RunDirError(f"{cell.within}: {error}") from error
    rounds = Recipe.model_validate(parsed(standing)).rounds
    if cell.result and rounds != cell.recipe.rounds:
        raise RunDirError(
            f"{cell.within} was done after {rounds} rounds, and the study asks for "
            f"{cell.recipe.rounds}; give the study another folder, or the old number"
        )


def heavy(recipes: Iterable[Recipe]) -> list[str]:
    """The modules that recipes need and that take seconds to import."""
    found = {"eva.study.play"}
    for recipe in recipes:
        if recipe.policy.kind == "hf":
            is_online = isinstance(recipe.learner, Online)
            found |= {"eva.backends.hf", "eva.learn.online" if is_online else "eva.learn.trainer"}
    return sorted(found)
