"""A missing extra is one sentence with the pip command, not a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from eva.errors import RecipeError


@contextmanager
def extra(name: str, who: str) -> Iterator[None]:
    """Say which extra is missing instead of a traceback.

    Raises:
        RecipeError: A library of the extra `name`, which `who` needs, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "eva":
            raise
        raise RecipeError(
            f"{who} needs {error.name}, which is not installed: pip install 'eva-rlhf[{name}]'"
        ) from error
