"""The key of a server, from the environment: recipes are written out, and must hold no secret."""

import os

from eva.errors import RecipeError


def bearer(variable: str | None, place: str) -> dict[str, str]:
    """The headers that carry the key in an environment variable; none where no variable is named.

    Args:
        variable: Its name.
        place: The key of the recipe that names it, for the error.

    Raises:
        RecipeError: The variable is not set.
    """
    if variable is None:
        return {}
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise RecipeError(
            f"{place} names the environment variable {variable}, which is not set; export it, or "
            "correct its name"
        )
    return {"Authorization": f"Bearer {secret}"}
