"""How fast the creator's arithmetic is: score a pool of prompts and draw a quarter of it.

Run `python bench/pool.py`; it prints a table and writes docs/bench-pool.md. Ten million prompts
with six rewards need about 3 GB of memory; `--prompts` takes fewer. Each time is the median over
`--repeats` of the CPU seconds of one call, and the contenders of one row group run in turn. What is
marked "x scale" ran on 10^5 prompts, and its time is scaled up linearly.
"""

import argparse
import datetime
import heapq
import math
import os
import platform
import random
import shlex
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from _host import processor
from eva.formulas import selection
from eva.formulas.informativeness import INFO, a_min, loo_rms
from eva.formulas.pairing import best_and_worst, win_probabilities
from eva.protocols import Floats_P, Floats_P_G, Index_K

LOOP = 100_000
"""Prompts that the Python loops get."""


class Contender(NamedTuple):
    """One way to do the work of one row."""

    name: str
    """As the table shows it."""
    call: Callable[[], object]
    """Does the work once."""
    scale: float = 1.0
    """The whole pool's size over that of the work."""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    """The contender."""
    seconds: float
    """CPU seconds for the whole pool, the median."""
    megabytes: float
    """Peak of the memory that the call allocates, beyond its input."""
    per_second: float
    """Prompts per CPU second."""


def loop_a_min(rewards: list[list[float]]) -> list[float]:
    """Best minus worst of each prompt, one prompt at a time."""
    return [max(group) - min(group) for group in rewards]


def loop_draw(weights: list[float], K: int) -> list[int]:
    """Weighted draw without replacement by exponential keys, one prompt at a time."""
    generator = random.Random(1)
    keys = ((generator.expovariate(w), i) for i, w in enumerate(weights) if w > 0)
    return [i for _, i in heapq.nsmallest(K, keys)]


def choice(info_P: Floats_P, K: int) -> Index_K:
    """NumPy's own weighted draw without replacement."""
    p_P = selection.min_max_weights(info_P)
    return np.random.default_rng(1).choice(len(p_P), K, replace=False, p=p_P)


def seconds(contender: Contender) -> float:
    """CPU seconds of one call, scaled to the whole pool."""
    start = time.process_time()
    contender.call()
    return (time.process_time() - start) * contender.scale


def megabytes(contender: Contender) -> float:
    """Peak of what one call allocates; NaN for a loop over fewer prompts."""
    if contender.scale > 1:
        return math.nan
    tracemalloc.start()
    contender.call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def rows(contenders: list[Contender], P: int, repeats: int) -> list[Row]:
    """The contenders' times, measured in turn."""
    times = [[seconds(contender) for contender in contenders] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return [
        Row(contender.name, median, megabytes(contender), P / median)
        for contender, median in zip(contenders, medians, strict=True)
    ]


def scoring(rewards_P_G: Floats_P_G) -> list[Contender]:
    """Every metric, and the obvious alternatives to a_min."""
    P = len(rewards_P_G)
    holes_P_G = rewards_P_G.copy()
    holes_P_G[np.random.default_rng(2).random(holes_P_G.shape) < 0.05] = np.nan
    few = rewards_P_G[:LOOP].tolist()
    metrics = [
        Contender(f"`{name}`", partial(metric, rewards_P_G))
        for name, metric in {**INFO, "loo_rms": loo_rms}.items()
    ]
    return [
        *metrics,
        Contender("`a_min`, 5 % of the rewards missing", partial(a_min, holes_P_G)),
        Contender("`best_and_worst`", partial(best_and_worst, rewards_P_G)),
        Contender("`win_probabilities`", partial(win_probabilities, rewards_P_G)),
        Contender(
            "`r.max(axis=1) - r.min(axis=1)`",
            lambda: rewards_P_G.max(axis=1) - rewards_P_G.min(axis=1),
        ),
        Contender("Python loop, max - min (x scale)", partial(loop_a_min, few), P / len(few)),
    ]


def drawing(info_P: Floats_P, K: int) -> list[Contender]:
    """Every selector, and the obvious alternatives to the proportional one."""
    P = len(info_P)
    selectors: dict[str, Callable[[Floats_P, int, np.random.Generator], Index_K]] = {
        "proportional": selection.proportional,
        "proportional, floor=0.1": partial(selection.proportional, floor=0.1),
        "rank": selection.rank,
        "greedy": selection.greedy,
        "stratified": selection.stratified,
        "uniform": selection.uniform,
    }
    few = selection.min_max_weights(info_P[:LOOP]).tolist()
    return [
        *(
            Contender(f"`{name}`", partial(fresh, select, info_P, K))
            for name, select in selectors.items()
        ),
        Contender("`rng.choice(P, K, replace=False, p=p)`", partial(choice, info_P, K)),
        Contender(
            "Python loop, exponential keys in a heap (x scale)",
            partial(loop_draw, few, K * len(few) // P),
            P / len(few),
        ),
    ]


def fresh(
    select: Callable[[Floats_P, int, np.random.Generator], Index_K], info_P: Floats_P, K: int
) -> Index_K:
    """A draw with a new generator, so that all repeats do the same work."""
    return select(info_P, K, np.random.default_rng(1))


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| | CPU seconds | peak memory, MB | prompts per second |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        memory = "" if math.isnan(row.megabytes) else f"{row.megabytes:,.0f}"
        lines.append(f"| {row.name} | {row.seconds:.2f} | {memory} | {row.per_second:,.0f} |")
    return "\n".join(lines)


def page(args: argparse.Namespace) -> str:
    """The whole page: what was measured, on what, and the tables."""
    P, K = args.prompts, max(args.prompts // 4, 1)
    rewards_P_G = np.random.default_rng(0).random((P, args.responses))
    scored = rows(scoring(rewards_P_G), P, args.repeats)
    info_P = a_min(rewards_P_G)
    drawn = rows(drawing(info_P, K), P, args.repeats)
    del rewards_P_G
    coarse = rows(drawing(np.round(6 * info_P) / 6, K)[:-2], P, args.repeats)
    return f"""# The creator's arithmetic on a large pool

{P:,} prompts with {args.responses} rewards each, float64, uniform in [0, 1];
{K:,} prompts are drawn. CPU seconds of one call, the median of {args.repeats}, contenders in turn;
peak memory is what the call allocates beyond its input. Rows marked "x scale" ran on {LOOP:,}
prompts, and their time is scaled up.

{datetime.datetime.now(tz=datetime.UTC).date()}, Python {platform.python_version()},
NumPy {np.__version__}, {processor()}, {platform.system()}, one thread; load average
{os.getloadavg()[1]:.1f} on {os.cpu_count()} shared cores over the last five minutes. Command:

    {shlex.join(["python", *sys.argv])}

## Score

{table(scored)}

## Draw a quarter by `a_min`

{table(drawn)}

## Draw a quarter by `a_min` rounded to sixths: nearly all scores tie

{table(coarse)}
"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000_000)
    parser.add_argument("--responses", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/bench-pool.md"))
    args = parser.parse_args()
    text = page(args)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
