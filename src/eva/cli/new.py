"""`eva new`: a folder with a recipe, a reward function and prompts, ready to run and to change."""

import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from eva.cli.out import plain
from eva.errors import RunDirError
from eva.store import write_whole


def new(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    model: Annotated[str, typer.Option("--model", help="A model folder or hub id.")] = "playground",
) -> None:
    """Make a recipe, a reward stub and sample prompts: a run of your own to start from."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunDirError(f"{folder} is no empty folder; name one that does not exist yet")
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name) or "mine"
    for source in (resources.files("eva") / "cli" / "starter").iterdir():
        text = source.read_text("utf-8").replace("MODEL", model).replace("NAME", name)
        write_whole(folder / source.name.removesuffix(".txt"), [text.encode()])
    place = shlex.quote(str(folder))
    plain().print(
        f"made {folder}: edit recipe.yaml and reward.py, then\n"
        f"  eva check {place}/recipe.yaml\n  eva run {place}/recipe.yaml {place}/run"
    )
