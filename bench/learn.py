"""How many tokens a CPU-second teaches: eva's learners against TRL's DPOTrainer and RLOOTrainer.

    python bench/learn.py                          # every case; writes docs/bench-learn.md
    python bench/learn.py --only playground        # cases whose name contains it
    python bench/learn.py --tune                   # the settings of TRL that were tried

Float32, one thread, the same weights, AdamW, pairs and steps on both sides; a run counts only if
both log the same mean loss. DPO: tokens are prompt and responses of the pairs of all steps, the
prompt once, and the pass over the reference is part of the time. RLOO: tokens are those sampled,
8 responses to a prompt, and sampling is part of the time; the reward is a sum of token ids. Loading
weights, making datasets and making trainers is left out on both sides. TRL runs twice: at its best
(pairs of a step sorted by length, nothing computed twice, the settings that were fastest in a
trial), and as it is mostly called (8 pairs or fewer at once in the given order, activations
computed again and a second model as reference, as its defaults have it). All run in turn, and a
ratio is the median of the ratios within one turn, with the quartiles in brackets, so that a machine
that slows down slows all.

Peak memory is measured in a process of its own for each arm, after a first update on the playground
has loaded every module: the high-water mark of resident memory (VmHWM, set back by
/proc/self/clear_refs) minus the resident memory before the weights are loaded.
"""

import os

# Read once, when torch, transformers and trl are imported.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TQDM_DISABLE": "1",
}

import argparse
import ctypes
import datetime
import gc
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import accelerate
import numpy as np
import torch
import transformers

from _host import processor
from _learn_cases import Case, Offline, Online, cases, made, pairs
from _learn_eva import Timed, dpo, eva_dpo, eva_rloo
from _learn_fit import fits
from _learn_gpu import gpu_row
from _learn_trl import TRL, Setting, trl_dpo, trl_rloo
from sampler import QUIET

REPORT = Path(__file__).parents[1] / "docs" / "bench-learn.md"
KLS = (0.0, 0.05)
"""Weights of the penalty of RLOO; without one there is no reference model."""
ARMS = ("usual", "best", "eva")
NOTES = """\
## What was tried for TRL

One run of each setting (`--tune` repeats them), before the pairs of the precomputed reference were
sorted too: a precomputed reference was 0 to 19 % slower then. It is taken for the larger models all
the same, for it saves the second model; a running one may be somewhat faster.
Fewer pairs at once are faster where lengths differ (Llama 32k, 6 pairs in a step:
2 at once 24 s, 3 25 s, 6 33 s) and more at once where all is short (playground: 16 at once 0.78 s,
32 0.66 s, 64 0.65 s). RLOO: the static cache is faster on the playground (1.5 against 1.7 s, 256 at
once; 64 at once 1.8 s) and makes no difference for Llama, nor does the split (8 at once 30 s, 32
31 s); the table has 8, which takes less memory.
Wider vocabularies take the settings of the narrow one. Not tried: `torch_compile`, which
compiles again for each padded shape and would have to be given to both; padding_free, which this
release ignores; loader workers, which only move the work to another process.

TRL's usual arm has activations computed again by default. On a CPU its output head scores every
position and keeps no logits; on CUDA it scores response tokens alone, so the gain of the larger
vocabularies is one of CPUs. Random models never end an answer; all of theirs are cut.

## Where eva gains, and where not

The gains are prompts encoded once, logits of response tokens alone, a head that keeps small logits,
passes cut by length, and in RLOO the sampler and no second pass over fresh samples. The least gain
is DPO on the playground, where everything is short and both sides do the same small matrix
products: of eva's time 35 % is in them, 15 % in attention and 10 % in GELU.
Splitting the head along the vocabulary instead of the tokens halved its time at 256k (9.7 to 4.9 s
for 300 tokens), for 16 rows at a time had to read all of its weights.
"""
DIGITS = 2e-3
"""Largest difference of two losses that are the same, relative to their size."""


@dataclass(frozen=True)
class Work:
    """One row of the table: a case, and DPO or RLOO."""

    case: Case
    kl: float | None = None
    """The penalty of RLOO; None for DPO."""

    @property
    def name(self) -> str:
        """How the row is called."""
        learner = "DPO" if self.kl is None else f"RLOO, kl {self.kl:g}"
        return f"{self.case.name}: {learner}"

    @property
    def load(self) -> Offline | Online:
        """How much is done."""
        if self.kl is None:
            return self.case.offline
        assert self.case.online is not None
        return self.case.online


@dataclass(frozen=True)
class Measured:
    """One row of the table; the arms in the order of `ARMS`."""

    work: Work
    runs: dict[str, list[Timed]]
    """Of each arm, in each turn."""
    peaks: dict[str, float]
    """MiB of each arm."""


def works(only: str | None) -> list[Work]:
    """The rows of the table."""
    rows = [Work(case, kl) for case in cases() for kl in (None, *(KLS if case.online else ()))]
    return [row for row in rows if only is None or only in row.name]


def setting(work: Work, arm: str) -> Setting:
    """How TRL is called in an arm."""
    load = work.load
    if isinstance(load, Online):
        rows = load.prompts * 8
        if arm == "usual":
            return Setting(8, precompute=False, checkpointing=True)
        return Setting(min(rows, load.best), cache="static")
    if arm == "usual":
        return Setting(min(8, load.batch), precompute=False, checkpointing=True, is_sorted=False)
    return Setting(load.best, precompute=load.precompute)


def arm(work: Work, name: str, folder: Path) -> Callable[[], Timed]:
    """A run of one arm."""
    load = work.load
    given = made(work.case, folder)
    chosen = setting(work, name)
    if isinstance(load, Offline):
        groups = pairs(work.case)
        if name == "eva":
            return lambda: eva_dpo(given, load, groups, dpo(load))
        return lambda: trl_dpo(given, load, groups, chosen)
    kl = work.kl or 0.0
    if name == "eva":
        return lambda: eva_rloo(given, work.case, load, kl)
    return lambda: trl_rloo(given, work.case, load, kl, chosen)


def measure(work: Work, folder: Path) -> Measured:
    """Run all arms in turn; then their peaks of memory, each in its own process."""
    arms = {name: arm(work, name, folder) for name in ARMS}
    runs: dict[str, list[Timed]] = {name: [] for name in ARMS}
    for turn in range(work.load.turns):
        for name in ARMS:
            if name != "usual" or turn < work.load.usual:
                gc.collect()
                runs[name].append(arms[name]())
    if work.kl is None:
        losses = [run.loss for row in runs.values() for run in row]
        assert np.ptp(losses) <= DIGITS * max(map(abs, losses)), f"losses differ: {losses}"
    return Measured(work, runs, {name: peak(work, name, folder) for name in ARMS[1:]})


def peak(work: Work, name: str, folder: Path) -> float:
    """MiB of resident memory at most, in a process of its own."""
    command = [sys.executable, __file__, "--peak", work.name, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measured_peak(work: Work, name: str, folder: Path) -> float:
    """The same, in this process."""
    small = Work(cases()[0], work.kl)
    arm(small, name, folder)()
    run = arm(work, name, folder)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 1024


def resident(kind: str) -> float:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(kind))


def report(rows: Sequence[Measured], parts: Sequence[str]) -> str:
    """The page that is written to docs."""
    lines = [
        "# Learner: tokens per CPU-second and peak memory",
        "",
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, accelerate {accelerate.__version__}, "
        f"trl {TRL.__version__}, {processor()}, {os.cpu_count()} cores of which each process uses "
        f"one. Command: `{' '.join(('python bench/learn.py', *sys.argv[1:]))}`.",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        "| case | TRL, usual | TRL, best | eva | eva / usual | eva / best "
        "| MiB: TRL, best | eva | eva / TRL |",
        "|---|---|---|---|---|---|---|---|---|",
        *(line(row) for row in rows),
        gpu_row(),
        "",
        "Set-up, in CPU seconds, medians (not in the table above): "
        + "; ".join(setup(row) for row in rows if row.work.kl is None)
        + ".",
        "",
    ]
    return "\n".join([*lines, *parts, NOTES])


def line(row: Measured) -> str:
    """One row of the table."""
    speeds = {
        name: f"{np.median([run.tokens / run.seconds for run in runs]):,.0f}"
        for name, runs in row.runs.items()
    }
    best = f"{speeds['best']} ({setting(row.work, 'best')})"
    peaks = [f"{row.peaks[name]:,.0f}" for name in ARMS[1:]]
    ratios = [ratio(row.runs["eva"], row.runs[name]) for name in ("usual", "best")]
    share = f"{row.peaks['eva'] / row.peaks['best']:.2f}"
    cells = [row.work.name, speeds["usual"], best, speeds["eva"], *ratios, *peaks, share]
    return "| " + " | ".join(cells) + " |"


def ratio(ours: Sequence[Timed], theirs: Sequence[Timed]) -> str:
    """The median of the ratios of speed within one turn, and their quartiles."""
    ratios = [
        (our.tokens / our.seconds) / (their.tokens / their.seconds)
        for our, their in zip(ours, theirs, strict=False)
    ]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    spread = f" ({low:.2f} to {high:.2f})" if len(ratios) > 1 else ""
    return f"**{middle:.2f}**{spread}"


def setup(row: Measured) -> str:
    """What it takes from the loaded weights to the first step."""
    times = [
        f"{name} {np.median([run.setup for run in row.runs[name]]):.2f}" for name in ("best", "eva")
    ]
    return f"{row.work.case.name}: TRL {times[0]}, {times[1]}"


def tune(folder: Path) -> None:
    """Print the time of each setting of TRL."""
    for work in works(None):
        load, given = work.load, made(work.case, folder)
        for split in load.splits:
            for choice in (True, False):
                if isinstance(load, Online):
                    tried = Setting(split, cache="static" if choice else None)
                    run = trl_rloo(given, work.case, load, work.kl or 0.0, tried)
                else:
                    tried = Setting(split, precompute=choice)
                    run = trl_dpo(given, load, pairs(work.case), tried)
                print(f"{work.name}: {tried}: {run.tokens / run.seconds:,.0f} tokens/s", flush=True)


def told(work: Work, folder: Path) -> Measured:
    """A row, measured in a process of its own."""
    path = folder / f"{work.name}.pickle"
    command = [sys.executable, __file__, "--row", work.name, str(path), str(folder)]
    subprocess.run(command, check=True)
    row: Measured = pickle.loads(path.read_bytes())
    print(line(row), flush=True)
    return row


def hidden(given: argparse.Namespace) -> bool:
    """What a child process is asked for; False in the first process."""
    what = given.peak or given.row
    if what:
        (work,) = (row for row in works(None) if row.name == what[0])
        if given.peak:
            print(measured_peak(work, what[1], Path(what[2])))
        else:
            Path(what[1]).write_bytes(pickle.dumps(measure(work, Path(what[2]))))
    return bool(what)


def main() -> None:
    """Measure, print, and write the page if every case was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a part of the names of rows; the page is not written then")
    parser.add_argument("--jobs", type=int, default=1, help="rows that are measured side by side")
    parser.add_argument("--tune", action="store_true", help="try the settings of TRL")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    QUIET.set_verbosity_error()
    QUIET.disable_progress_bar()
    if hidden(given):
        return
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(given.jobs) as pool:
        folder = Path(name)
        if given.tune:
            tune(folder)
            return
        for case in cases():
            made(case, folder)
        chosen = works(given.only)
        found = [pool.submit(told, work, folder) for work in chosen]
        parts = pool.submit(fits, folder) if given.only is None else None
        rows = [future.result() for future in found]
        page = report(rows, parts.result() if parts else [])
    print(page)
    if given.only is None:
        REPORT.write_text(page)


if __name__ == "__main__":
    main()
