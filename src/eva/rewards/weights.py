"""Every tensor accounted for: transformers fills what a folder lacks with random numbers."""

from collections.abc import Collection, Mapping
from typing import Any

from eva.errors import BackEndError


def check_complete(
    info: Mapping[str, Collection[Any]], uri: str, expected: str, advice: str, *, strict: bool
) -> None:
    """Refuse weights that lack tensors, or have them in another shape.

    Args:
        info: What transformers says about the loading (`output_loading_info`).
        uri: Where the weights come from.
        expected: What they should be.
        advice: What to do.
        strict: Whether tensors that the model has no use for are refused too.

    Raises:
        BackEndError: They are not those of the model.
    """
    kinds = {"missing": "missing_keys", "of another shape": "mismatched_keys"}
    kinds |= {"unexpected": "unexpected_keys"} if strict else {}
    for flaw, key in kinds.items():
        names = sorted(name if isinstance(name, str) else name[0] for name in info[key])
        if names:
            raise BackEndError(
                f"expected {expected}; at {uri}, {len(names)} tensors are {flaw}, the first is "
                f"{names[0]}; {advice}"
            )
