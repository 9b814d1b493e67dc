"""Graphics cards: memory, speed of matrix products and of memory, as their makers publish them."""

from dataclasses import dataclass

from eva.errors import RecipeError

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    """As people call it."""
    memory: float
    """In GiB."""
    peak: float | None = None
    """bfloat16 products with float32 sums, dense, in floating-point operations a second; None where
    only the memory is known."""
    bandwidth: float | None = None
    """Of its memory, in bytes a second."""

    @property
    def usable(self) -> float:
        """Bytes that tensors can have; `SPARE` is kept for the context and for fragments."""
        return self.memory * GIB * (1 - SPARE)


SPARE = 0.06
"""Share of a card's memory that tensors cannot have. Our choice."""
CARDS = (
    Card("H200", 141, 989e12, 4.8e12),
    Card("H100", 80, 989e12, 3.35e12),
    Card("A100-80GB", 80, 312e12, 2.039e12),
    Card("A100-40GB", 40, 312e12, 1.555e12),
    Card("L40S", 48, 362e12, 0.864e12),
    Card("RTX-4090", 24, 165e12, 1.008e12),
    Card("RTX-3090", 24, 71e12, 0.936e12),
)
"""From NVIDIA's data sheets (H100, H200 and A100 of the SXM kind) and the white papers of the Ada
and Ampere GeForce cards."""


def card(name: str) -> Card:
    """The card of a name, however it is spelt.

    Raises:
        RecipeError: There is no such card.
    """
    wanted = _plain(name)
    found = [one for one in CARDS if _plain(one.name) == wanted]
    if not found:
        known = ", ".join(one.name for one in CARDS)
        raise RecipeError(
            f"--gpu {name} is no card that eva knows the numbers of: {known}; for another one give "
            "--gpu-memory and --tokens-per-second"
        )
    return found[0]


def index(device: str) -> int | None:
    """The number of a GPU of this machine, 0 for "auto"; None for the CPU.

    Examples:
        >>> index("cuda:1"), index("auto"), index("cpu")
        (1, 0, None)
    """
    return None if device == "cpu" else int(device.partition(":")[2] or "0")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
