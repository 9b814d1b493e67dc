"""eva's arm of bench/evolve.py: Evol-Instruct through an HTTP policy, answers kept on disk."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from eva.build.creators import evolver
from eva.parts.evolvers import EvolInstruct
from eva.parts.policies import HttpPolicy
from eva.processes import collect_seldom
from eva.protocols import Releasable
from eva.records import Message, Prompt, Response, Sampling, ScoredPrompt

CHUNK = 4096
"""Parents in one call. A recipe has 1,024 unless it says otherwise: a tenth slower."""


def parents(count: int) -> list[ScoredPrompt]:
    """Prompts of 20 words."""
    text = "Explain to me how family number {} could plan a week of holidays in the rain by the sea"
    return [
        ScoredPrompt(
            prompt=Prompt(messages=(Message(role="user", content=text.format(i)),)),
            info=1.0,
            round=0,
            policy="theta",
        )
        for i in range(count)
    ]


def nobody(
    prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
) -> list[list[Response]]:
    """The current policy, which is not asked."""
    raise AssertionError


def main(url: str, mode: str, processes: int, count: int, evolutions: int, in_flight: int) -> None:
    """Evolve, and print the seconds that it took and how many children are sound."""
    by = HttpPolicy(kind="http", model="bench", urls=(url,), concurrency=in_flight)
    part = EvolInstruct(
        kind="evol_instruct",
        by=by,
        children=evolutions,
        chained=mode == "chained",
        processes=processes,
    )
    given = parents(count)
    collect_seldom()  # as the command line does
    with tempfile.TemporaryDirectory() as cache:
        evolve = evolver(part, Path.cwd(), Path(cache))
        evolve([], nobody, seed=1)  # processes start once in a round
        begin = time.perf_counter()
        children = [
            child
            for start in range(0, count, CHUNK)
            for child in evolve(given[start : start + CHUNK], nobody, seed=1)
        ]
        seconds = time.perf_counter() - begin
        assert isinstance(evolve, Releasable)
        evolve.release()
    sound = sum(child.flaw is None for child in children)
    print(json.dumps({"seconds": seconds, "sound": sound}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))
