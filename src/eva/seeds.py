"""Every random draw has a name: a seed and a path, never a global generator.

Two draws with different paths are independent; the same path gives the same draw on every machine,
in every order and however often a run was stopped in between.
"""

import hashlib
from collections.abc import Iterable

import numpy as np


def child(seed: int, *path: str | int) -> int:
    """The seed of one named draw, an integer in [0, 2**63).

    Args:
        seed: The parent seed, any integer.
        *path: The name of the draw, from coarse to fine, e.g. ``"round", 3, "select"``.

    Examples:
        >>> child(1, "round", 0) == child(1, "round", 0)
        True
        >>> child(1, "round", 0) == child(1, "round", 1)
        False
        >>> child(1, "a", "b") == child(1, "ab")  # parts do not run together
        False
    """
    name = repr((seed, *path)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def rng(seed: int, *path: str | int) -> np.random.Generator:
    """A generator for one named draw; see `child`.

    Examples:
        >>> float(rng(1, "x").random()) == float(rng(1, "x").random())
        True
    """
    return np.random.Generator(np.random.PCG64(child(seed, *path)))


def digest(names: Iterable[str]) -> str:
    """What a list of names is, in order: BLAKE2b, 20 hexadecimal digits.

    Examples:
        >>> digest(["a", "b"]) == digest(["ab"])
        False
    """
    return hashlib.blake2b(repr(list(names)).encode(), digest_size=10).hexdigest()
