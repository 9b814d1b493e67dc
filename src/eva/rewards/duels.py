"""Each two responses of a group, in both orders."""

from collections.abc import Iterable, Sequence

import numpy as np

from eva.protocols import Floats
from eva.records import Response


def duels(responses: Sequence[Sequence[Response]]) -> list[tuple[int, int, int]]:
    """Every (prompt, first response, second response), as positions; G (G - 1) of each prompt.

    Examples:
        >>> duels([[Response(text="a"), Response(text="b")]])
        [(0, 0, 1), (0, 1, 0)]
    """
    return [
        (p, i, j)
        for p, group in enumerate(responses)
        for i in range(len(group))
        for j in range(len(group))
        if i != j
    ]


def matrix(responses: Sequence[Sequence[Response]], won: Iterable[float]) -> Floats:
    """What the first response of each duel won, shape [P, G, G]; NaN on the diagonal.

    Examples:
        >>> matrix([[Response(text="a"), Response(text="b")]], [1.0, 0.25])
        array([[[ nan, 1.  ],
                [0.25,  nan]]])
    """
    size = len(responses[0]) if responses else 0
    p_P_G_G = np.full((len(responses), size, size), np.nan)
    for place, p in zip(duels(responses), won, strict=True):
        p_P_G_G[place] = p
    return p_P_G_G
