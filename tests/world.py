"""Small helpers for tests: games in the world of numbers, and run directories to compare."""

from pathlib import Path

from eva.config import Recipe
from eva.recipe import load
from eva.start import run_recipe

SMALL = ("rounds=3", "prompts.n=8", "chunk=3", "evaluate.sets.easy.n=4", "evaluate.sets.hard.n=4")


def recipe(*overrides: str) -> Recipe:
    """The toy recipe, small."""
    return load("toy", [*SMALL, *overrides])


def played(path: Path, *overrides: str) -> list[tuple[int, dict[str, float]]]:
    """Play the small toy recipe to its end."""
    return list(run_recipe(recipe(*overrides), path, here=path.parent))


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run directory but the logs, which alone hold times."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and "logs" not in file.relative_to(path).parts
    }
