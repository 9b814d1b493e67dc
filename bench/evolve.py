"""How many rewrites a second: eva's Evol-Instruct against distilabel's, before one served model.

    python bench/evolve.py                # about four minutes; writes docs/bench-evolve.md
    python bench/evolve.py --turns 1      # a look; the page is not written then

A local server answers every request after 50 ms, in a process of its own; at most 256 requests are
in flight, so no client can have more than 5,120 answers a second. Each arm draws one of five
operators for each rewrite, and writes four rewrites of each prompt, all kept. eva runs as in a
recipe: an HTTP writer that keeps every answer on disk, children as checked records, a chunk of
4,096 parents; "chained" rewrites the last rewrite, as distilabel does, "independent" the parent,
and "in 3" is `creator.evolve.processes: 3`. distilabel runs as its documentation has it: a pipeline
of one step, with a batch as large as what may be in flight. It lives in a virtual environment of
its own, which the first run makes.

eva's seconds are those of the whole evolver, from parents to children. distilabel's are those
between the first request and the last answer, as the server sees them. The start of processes,
once in a round, is not counted in either. CPU time is that of all processes of an arm between
its first request and its last answer, memory the greatest proportional set size of all of them. All
run in turn, and a ratio is the median of the ratios within one turn, so that a machine that slows
down slows all.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from _host import processor

DELAY = 0.05
"""Seconds until the server answers."""
IN_FLIGHT = 256
"""Requests in flight, at most."""
EVOLUTIONS = 4
"""Rewrites of each prompt."""
EVA_PARENTS, THEIR_PARENTS = 4096, 512
"""Prompts of an arm: enough for seconds."""
DISTILABEL = "1.5.3"
REQUIREMENTS = (f"distilabel[openai]=={DISTILABEL}", "requests")  # it does not declare the second
VENV = Path(tempfile.gettempdir()) / f"eva-bench-distilabel-{DISTILABEL}"
HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "bench-evolve.md"
POLL = 0.1
"""Seconds between two looks at an arm."""
LIMIT = 120.0
"""Seconds after which an arm is ended."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One run of an arm."""

    requests: int
    rate: float
    """Requests per second."""
    cpu: float
    """CPU time of a request, in seconds."""
    memory: float
    """Greatest proportional set size of all processes, in bytes."""
    peak: int
    """Most requests that the server saw in flight."""


@dataclass(frozen=True)
class Arm:
    """What is measured."""

    name: str
    command: tuple[str, ...]
    """Its program; it gets the URL of the server, and prints JSON as its last line."""
    arguments: tuple[str, ...]
    parents: int


def arms() -> list[Arm]:
    """The rivals: eva in four ways, and distilabel."""
    eva, theirs = str(HERE / "_evolve_eva.py"), str(HERE / "_evolve_distilabel.py")
    ours = [
        Arm(name, (sys.executable, eva), (mode, str(processes), str(EVA_PARENTS)), EVA_PARENTS)
        for processes, where in ((1, ""), (3, " in 3"))
        for mode in ("chained", "independent")
        for name in [f"eva, {mode}{where}"]
    ]
    distilabel = (str(VENV / "bin" / "python"), theirs)
    return [*ours, Arm("distilabel", distilabel, (str(THEIR_PARENTS),), THEIR_PARENTS)]


def install() -> None:
    """Make the virtual environment of distilabel, unless it is there."""
    done = VENV / "done"
    if done.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    done.touch()


@contextmanager
def serving() -> Iterator[str]:
    """A server; its address without /v1."""
    command = [sys.executable, str(HERE / "_evolve_server.py"), str(DELAY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def told(url: str) -> dict[str, float]:
    """What the server says."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        found: dict[str, float] = json.loads(reply.read())
    return found


def measure(arm: Arm, server: str) -> Measured:
    """Run an arm to its end, and look at its processes meanwhile."""
    told(f"{server}/begin")
    sizes = (str(EVOLUTIONS), str(IN_FLIGHT))
    command = [*arm.command, f"{server}/v1", *arm.arguments, *sizes]
    wanted, memory, marks = arm.parents * EVOLUTIONS, 0.0, [0.0, 0.0]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environ, start_new_session=True
        )
        begin = time.monotonic()
        while process.poll() is None:
            counts = told(f"{server}/counts")
            cpu, held = usage(process.pid)
            marks[0] = marks[0] if counts["requests"] else cpu
            marks[1] = marks[1] if counts["requests"] == wanted and not counts["now"] else cpu
            memory = max(memory, held)
            if time.monotonic() - begin > LIMIT:
                os.killpg(process.pid, 9)
            time.sleep(POLL)
        out.seek(0), err.seek(0)
        lines, errors = out.read().splitlines(), err.read()
    if process.returncode:
        raise SystemExit(f"{arm.name} ended with {process.returncode}:\n{errors[-3000:]}")
    printed, counts = json.loads(lines[-1]), told(f"{server}/counts")
    if not counts["requests"] == printed["sound"] == wanted:
        raise SystemExit(f"{arm.name}: {printed} of {wanted} rewrites; the server saw {counts}")
    seconds = printed.get("seconds", counts["last"] - counts["first"])
    cpu = (marks[1] - marks[0]) / wanted
    return Measured(wanted, wanted / seconds, cpu, memory, int(counts["peak"]))


def usage(first: int) -> tuple[float, float]:
    """CPU seconds and proportional set size in bytes of a process and all that came of it."""
    cpu = memory = 0.0
    found, stats = {first}, dict(stat_fields())
    while more := {p for p, fields in stats.items() if int(fields[1]) in found} - found:
        found |= more
    for process in found & stats.keys():
        try:
            rolled = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            memory += next(int(line.split()[1]) for line in rolled if line[:4] == "Pss:")
            cpu += sum(map(int, stats[process][11:15])) / TICK  # with children that ended
        except (OSError, StopIteration):
            continue  # it ended meanwhile
    return cpu, memory * 1024


def stat_fields() -> Iterator[tuple[int, list[str]]]:
    """All processes, and what /proc says of each after its name: state, parent, ..."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield int(folder.name), (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile


def report(turns: Sequence[Sequence[Measured]], load: str) -> str:
    """The page that is written to docs; `turns` holds what each arm measured in each turn."""
    ideal = IN_FLIGHT / DELAY
    where = f"Python {platform.python_version()}, {processor()}, {os.cpu_count()} cores"
    rivals = f"aiohttp {version('aiohttp')}, distilabel {DISTILABEL}"
    rows = [
        f"| {arm.name} | {runs[0].requests:,} | {middle(runs, 'rate'):,.0f} "
        f"| {middle(runs, 'rate') / ideal:.0%} | {middle(runs, 'cpu') * 1e3:.2f} ms "
        f"| {middle(runs, 'memory') / 2**20:,.0f} MiB | {ratio(runs, columns[-1])} |"
        for columns in [list(zip(*turns, strict=True))]
        for arm, runs in zip(arms(), columns, strict=True)
    ]
    lines = [
        "# Evolving: rewrites per second",
        "",
        f"{datetime.date.today()}, {where}, {rivals}; load of the machine {load}, {len(turns)} "
        "turns, medians. Command: `python bench/evolve.py`.",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        "| arm | requests | requests per second | of the ideal | CPU per request | memory "
        "| against distilabel |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join([*lines, ""])


def middle(runs: Sequence[Measured], name: str) -> float:
    """The median of a field over the turns."""
    return median({"rate": r.rate, "cpu": r.cpu, "memory": r.memory}[name] for r in runs)


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured]) -> str:
    """The median of the ratios of rates within one turn, and the least and the greatest."""
    if ours is theirs:
        return "1"
    ratios = [our.rate / their.rate for our, their in zip(ours, theirs, strict=True)]
    return f"**{median(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f})"


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    install()
    before = os.getloadavg()[0]
    turns: list[list[Measured]] = []
    with serving() as server:
        for _ in range(given.turns):
            turns.append([])
            for arm in arms():
                turns[-1].append(measure(arm, server))
                print(arm.name, turns[-1][-1], flush=True)
    page = report(turns, f"{before:.1f} before and {os.getloadavg()[0]:.1f} after")
    print(page)
    if given.turns == parser.get_default("turns"):
        REPORT.write_text(page)


if __name__ == "__main__":
    main()
