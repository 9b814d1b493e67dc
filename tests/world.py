"""Small helpers for tests: games in the world of numbers, and run directories to compare."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from typer.testing import CliRunner

from eva import loop
from eva.cli.main import app
from eva.config import Recipe
from eva.game import Game
from eva.recipe import load
from eva.records import Record
from eva.start import quiet, run_recipe
from eva.store import held, read_records

R = TypeVar("R", bound=Record)

HELD_OUT = ("evaluate.sets.easy.n=4", "evaluate.sets.hard.n=4")
SMALL = ("rounds=3", "prompts.n=8", "chunk=3", *HELD_OUT)
SMALL_ONLINE = ("rounds=2", "prompts.n=8", "learner.steps=4", "learner.batch=4", *HELD_OUT)


def recipe(*overrides: str) -> Recipe:
    """The toy recipe, small."""
    return load("toy", [*SMALL, *overrides])


def online_recipe(*overrides: str) -> Recipe:
    """The online toy recipe, small: of 8 mini-batches 1 is warm-up, 2 are mix-up, 5 bootstrap."""
    return load("toy-online", [*SMALL_ONLINE, *overrides])


def played(path: Path, *overrides: str) -> list[tuple[int, dict[str, float]]]:
    """Play the small toy recipe to its end."""
    return list(run_recipe(recipe(*overrides), path, here=path.parent))


def played_online(path: Path, *overrides: str) -> list[tuple[int, dict[str, float]]]:
    """Play the small online toy recipe to its end."""
    return list(run_recipe(online_recipe(*overrides), path, here=path.parent))


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run directory but the logs, which hold times, and the cache of servers."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not {"logs", "cache"} & {*file.relative_to(path).parts}
    }


def killed_at(play: Callable[[], object], event: int) -> bool:
    """Play in a child process that kills itself at its n-th write; whether it was killed.

    Python announces each opening of a file, each rename and each removal before it is done, so the
    kill falls before a stage is written, and after it is written but not yet in its place.
    """
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(name, args):
            nonlocal seen
            is_part = name == "open" and str(args[0]).endswith((".part", "skill.json"))
            if (is_part and args[1] in ("wb", "w")) or name in ("os.rename", "os.remove"):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        play()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def play(game: Game, path: Path) -> list[tuple[int, dict[str, float]]]:
    """Play a game that was made in Python to its end."""
    with held(path, "x", {}, agree=lambda old, new: None, progress=quiet) as folder:
        return list(loop.run(game, folder))


def stage(path: Path, t: int, name: str, kind: type[R]) -> list[R]:
    """The records of a stage of round t."""
    return read_records(path / f"rounds/{t:03d}/{name}.jsonl", kind)


def said(*words: str) -> str:
    """What a verb prints, called in this process."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
