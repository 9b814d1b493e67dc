"""Rows of a Parquet file, read a batch at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from eva.errors import RecipeError
from eva.parts.prompts import FilePrompts


def rows(config: FilePrompts) -> Iterator[dict[str, JsonValue]]:
    """The rows of the file, as JSON values.

    Raises:
        RecipeError: The file is missing or no Parquet file.
    """
    path = Path(config.path)
    if not path.is_file():
        raise RecipeError(f"there is no file {path}; set prompts.path to a Parquet file")
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(f"{path} is no sound Parquet file ({error})") from error
