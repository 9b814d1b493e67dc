"""What the runs of a study read from outside: prompts, models, texts; it stays what it was.

A study that grows plays new runs beside old ones. Where both name the same and read something else,
their difference would be that of the data.
"""

import json

from pydantic import JsonValue

from eva.config import Recipe
from eva.errors import RunDirError
from eva.recipe import leaves
from eva.study.plan import Played

GIVEN = ("prompts", "new_prompts")
"""Inputs that depend on the seed too, and on what refuses prompts."""
REFUSES = ("evaluate.sets", "policy", "sampling.max_tokens", "seed")
"""What given prompts depend on beside what names them: held-out ones and too long ones are left out
(`eva.build`)."""


class Inputs:
    """What runs have read, by what their recipes name."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[JsonValue, Played]] = {}

    def see(self, cell: Played) -> None:
        """A cell has ended; one that was made before eva kept this is taken as it is.

        Raises:
            RunDirError: Another cell names the same, and read something else.
        """
        read = cell.result.inputs if cell.result else None
        for key, digest in (read or {}).items():
            before, one = self._first.setdefault(_named(cell.recipe, key), (digest, cell))
            if before != digest:
                raise RunDirError(
                    f"what runs read has changed: {key} of {one.within} was not what that of "
                    f"{cell.within} was. Restore it and delete the folders of the runs that read "
                    "something else, which are played again; or give this study another folder"
                )


def _named(recipe: Recipe, key: str) -> str:
    """What a recipe says of an input, with all that it depends on."""
    keys = (*GIVEN, *REFUSES) if key in GIVEN else (key,)
    said = [
        (leaf, value)
        for leaf, value in leaves(recipe)
        if any(leaf == one or leaf.startswith(f"{one}.") for one in keys)
    ]
    return json.dumps([key, said])
