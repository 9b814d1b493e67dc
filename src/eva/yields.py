"""What became of the children, operator by operator: how many were written, refused and born."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eva.records import SELF, Child

UNNAMED = "unnamed"
"""The gate of a child that was refused before gates were recorded."""


@dataclass(frozen=True)
class Yield:
    """What became of the children of one operator and writer."""

    method: str
    """The operator."""
    by: str
    """The writer; "self" for the policy, whichever checkpoint it was."""
    written: int
    """Children in all: the refused and the born."""
    refused: Mapping[str, int]
    """How many each gate refused, most first; none is 0."""
    born: int
    """Children that nothing refused."""

    @property
    def share(self) -> float:
        """Born of written, in [0, 1]."""
        return self.born / self.written


def yields(children: Iterable[Child]) -> tuple[Yield, ...]:
    """A row for each operator and writer, the one that wrote most first.

    In each row `written` is `born` and all of `refused` together.
    """
    written: Counter[tuple[str, str]] = Counter()
    refused: dict[tuple[str, str], Counter[str]] = {}
    for child in children:
        key = (child.method, _writer(child.by))
        written[key] += 1
        gates = refused.setdefault(key, Counter())
        gates.update(refused_by([child]))
    rows = [
        Yield(method, by, count, _ranked(gates), count - gates.total())
        for (method, by), count in written.items()
        for gates in [refused[method, by]]
    ]
    return tuple(sorted(rows, key=lambda row: (-row.written, row.method, row.by)))


def refused_by(children: Iterable[Child]) -> Counter[str]:
    """How many children each gate refused."""
    return Counter(child.gate or UNNAMED for child in children if child.flaw is not None)


def all_gates(rows: Sequence[Yield]) -> list[str]:
    """Every gate that refused a child, the one that refused most first."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.refused)
    return list(_ranked(total))


def _ranked(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _writer(by: str) -> str:
    return SELF if by.startswith(f"{SELF} ") else by
