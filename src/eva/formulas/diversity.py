"""How varied a set of texts is. Each formula takes texts that are already cut into words."""

import zlib
from collections.abc import Sequence

import numpy as np

from eva.protocols import Floats, Index_K


def distinct_n(words_P: Sequence[Sequence[str]], n: int) -> float:
    r"""Share of n-grams that are different from each other.

    ::

        distinct-n = |{all n-grams}| / number of n-grams

    Source: Jiwei Li et al., "A Diversity-Promoting Objective Function for Neural Conversation
    Models", https://arxiv.org/abs/1510.03055, section 5. It falls with the number of texts: compare
    sets of one size.

    Args:
        words_P: The words of P texts.
        n: Words in an n-gram.

    Returns:
        The share, in (0, 1]; NaN where no text has n words.

    Examples:
        >>> distinct_n([["a", "b", "a", "b"]], 2)  # ab, ba, ab
        0.6666666666666666
    """
    grams = [
        tuple(words[i : i + n]) for words in words_P for i in range(max(0, len(words) - n + 1))
    ]
    return len(set(grams)) / len(grams) if grams else float("nan")


def compression_ratio(texts: Sequence[str]) -> float:
    r"""How many times smaller zlib makes the texts: high where they repeat each other.

    ::

        CR = bytes of the texts, one per line / bytes of the same, compressed at level 6

    Source: Chantal Shaib et al., "Standardizing the Measurement of Text Diversity: A Tool and a
    Comparative Analysis of Scores", https://arxiv.org/abs/2403.00553, section 2 (there by gzip).

    Returns:
        The ratio, above 0; NaN without texts.

    Examples:
        >>> compression_ratio(["the same again"] * 100) > 20
        True
    """
    if not texts:
        return float("nan")
    raw = "\n".join(texts).encode()
    return len(raw) / len(zlib.compress(raw, 6))


def nearest_similarity(
    shingles_P: Sequence[set[tuple[str, ...]]], queries: int, rng: np.random.Generator
) -> float:
    r"""Mean Jaccard similarity of a text with the one most like it among the others.

    ::

        mean over i in Q of max_{j != i} |S_i and S_j| / |S_i or S_j|

    where S_i are the shingles of text i, and Q is a uniform draw of at most `queries` texts. Our
    choice; near 1 the set repeats itself.

    Args:
        shingles_P: The shingles of P texts.
        queries: Upper bound on the size of Q: the cost grows with it and with P.
        rng: Draws Q.

    Returns:
        The mean, in [0, 1]; NaN for fewer than two texts.

    Examples:
        >>> nearest_similarity([{("a",), ("b",)}, {("b",), ("c",)}], 2, np.random.default_rng(0))
        0.3333333333333333
    """
    P = len(shingles_P)
    if P < 2:
        return float("nan")
    asked_Q = rng.permutation(P)[:queries]
    return float(np.mean(_best_Q(shingles_P, asked_Q)))


def _best_Q(shingles_P: Sequence[set[tuple[str, ...]]], asked_Q: Index_K) -> Floats:
    """The highest similarity of each asked text with another one; shape [Q]."""
    having: dict[tuple[str, ...], list[int]] = {}
    for i in asked_Q.tolist():
        for shingle in shingles_P[i]:
            having[shingle] = []
    for j, shingles in enumerate(shingles_P):
        for shingle in shingles & having.keys():
            having[shingle].append(j)
    sizes_P = np.array([len(shingles) for shingles in shingles_P])
    best = np.zeros(len(asked_Q))
    for q, i in enumerate(asked_Q.tolist()):
        met = [j for shingle in shingles_P[i] for j in having[shingle]]
        shared_P = np.bincount(np.array(met, dtype=np.intp), minlength=len(sizes_P))
        together_P = np.maximum(sizes_P + sizes_P[i] - shared_P, 1)
        alike_P = shared_P / together_P
        alike_P[i] = 0.0
        best[q] = alike_P.max()
    return best
