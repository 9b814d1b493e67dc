"""The folders that a study prepares, such as its theta_0: each is made once, by its command.

A folder is made beside its place and renamed when its command has ended well; its name holds a
digest of the command and of the files that it names, so others make another folder.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from eva import seeds
from eva.errors import EvaError, RecipeError
from eva.recipe import LONGEST_NAME
from eva.store import cannot_write, settle
from eva.study.forks import Task, Tell, forked
from eva.study.plan import Study

OUT = "{out}"
"""Where a command names its folder."""


def folders(study: Study, home: Path, here: Path) -> dict[str, Path]:
    """The prepared folders of a study by name; those that are missing are still to be made.

    Args:
        study: The study.
        home: Its directory.
        here: The folder of its file, in which commands run.

    Raises:
        RecipeError: A command cannot be read, or says nowhere where its folder is.
    """
    found = {}
    for name, command in study.prepare.items():
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise RecipeError(f"prepare.{name}: {command!r} is no command: {error}") from error
        if not any(OUT in word for word in words):
            raise RecipeError(
                f"prepare.{name}: {command!r} does not say where its folder is; name it as {OUT}"
            )
        named = seeds.digest([command, *_texts(words, here)])[:10]
        found[name] = home.absolute() / "prepared" / f"{name}-{named}"
    return found


def _texts(words: Sequence[str], here: Path) -> list[str]:
    """The contents of the files beside the study that a command names, also as --option=file."""
    ends = [word.rpartition("=")[2] for word in words]
    named = [here / end for end in ends if len(end) <= LONGEST_NAME and not end.startswith("/")]
    return [file.read_bytes().hex() for file in named if file.is_file()]


def make_folders(
    study: Study, home: Path, *, here: Path, jobs: int, preload: Sequence[str] = ()
) -> Iterator[tuple[int, int]]:
    """Make the folders that are missing; yields how many are done, and how many there are.

    Their output stands beside the folders.

    Args:
        study: The study.
        home: Its directory.
        here: The folder of its file, in which commands run.
        jobs: Commands side by side.
        preload: What the cells need later; see `eva.study.forks.forked`.

    Raises:
        EvaError: A command failed: names it, and the last line that it printed.
    """
    made = folders(study, home, here)
    missing = {_log(path): name for name, path in made.items() if not path.is_dir()}
    done = len(made) - len(missing)
    tasks = [
        Task(make_folder, (study.prepare[name], made[name], here.absolute()), log)
        for log, name in missing.items()
    ]
    for news in forked(tasks, jobs, preload):
        if news.failed:
            name = missing[news.task.log]
            raise EvaError(f"prepare.{name} failed: {study.prepare[name]}: {news.failed}")
        done += 1
        yield done, len(made)


def make_folder(tell: Tell, command: str, path: Path, here: Path) -> None:
    """Run the command of one folder, and put the folder in its place.

    Raises:
        EvaError: The program is missing, failed, or made no folder.
    """
    part = path.with_name(path.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    words = [word.replace(OUT, str(part)) for word in shlex.split(command)]
    if words[0] == "eva":
        words[:1] = [sys.executable, "-m", "eva"]
    try:
        # Its output is that of this process: the log, which it holds as long as it lives.
        done = subprocess.run(words, cwd=here, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise EvaError(f"{words[0]} cannot be started ({error.strerror})") from error
    log = _log(path)
    if done.returncode != 0:
        raise EvaError(f"{_last_line(log) or f'it left with {done.returncode}'}; all of it: {log}")
    if not part.is_dir():
        raise EvaError(f"it ended well but made no folder {OUT}; see {log}")
    try:
        settle(part)
        part.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _log(path: Path) -> Path:
    return path.with_name(path.name + ".log")


def _last_line(log: Path) -> str:
    return log.read_text("utf-8", errors="replace").strip().split("\n")[-1]
