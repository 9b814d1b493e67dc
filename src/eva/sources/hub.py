"""Rows of a data set of the `datasets` library: a hub id, or a folder that `save_to_disk` wrote."""

from collections.abc import Iterator
from pathlib import Path

import datasets
from pydantic import JsonValue

from eva.errors import RecipeError
from eva.parts.prompts import DatasetPrompts


def rows(config: DatasetPrompts) -> Iterator[dict[str, JsonValue]]:
    """The rows of one split, as JSON values.

    Raises:
        RecipeError: The data set or the split cannot be had.
    """
    for row in _split(config):
        yield dict(row)


def _split(config: DatasetPrompts) -> datasets.Dataset:
    is_saved = (Path(config.path) / "dataset_dict.json").exists() or (
        Path(config.path) / "dataset_info.json"
    ).exists()
    try:
        if not is_saved:
            return datasets.load_dataset(config.path, split=config.split)
        found = datasets.load_from_disk(config.path)
        return found if isinstance(found, datasets.Dataset) else found[config.split]
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"cannot load the split {config.split!r} of the data set {config.path!r}: "
            f"{' '.join(str(error).split())}; expected a hub id or a folder of save_to_disk"
        ) from error
