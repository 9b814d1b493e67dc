"""How varied prompts are, in a few numbers at a bounded cost."""

from collections.abc import Sequence

import numpy as np

from eva import seeds
from eva.formulas.diversity import compression_ratio, distinct_n, nearest_similarity
from eva.records import Prompt
from eva.words import asked, shingles, words

SAMPLE = 1000
"""Prompts that are looked at, drawn by a fixed seed: about 40 ms, and sets of one size compare."""
QUERIES = 100
"""Prompts among them whose nearest neighbour is looked for."""
SHINGLE = 3
"""Words in a shingle, as in the gate of near-duplicates."""


def diversity(prompts: Sequence[Prompt]) -> dict[str, float]:
    """Measures of how varied the prompts' last user turns are; docs/metrics.md says what each is.

    One that cannot be had (of prompts without words, say) is left out.
    """
    rng = seeds.rng(0, "diversity")
    drawn = np.sort(rng.permutation(len(prompts))[:SAMPLE]).tolist()
    texts = [asked(prompts[i].messages) for i in drawn]
    words_P = [words(text) for text in texts]
    shingles_P = [shingles(found, SHINGLE) for found in words_P]
    found = {
        "distinct_2": distinct_n(words_P, 2),
        "nearest": nearest_similarity(shingles_P, QUERIES, rng),
        "compression": compression_ratio(texts),
        "words": float(np.mean([len(one) for one in words_P])) if words_P else float("nan"),
    }
    return {name: value for name, value in found.items() if not np.isnan(value)}
