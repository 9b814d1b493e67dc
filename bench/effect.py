"""Does evolving prompts help, against baselines tuned as hard? Tuned on some seeds, told on others.

    python bench/effect.py --tune     # 6 settings x 3 arms x seeds 1 to 3: prints the grid
    python bench/effect.py            # each arm at its best, seeds 4 to 8
    python bench/effect.py --ablations

Each writes its section of docs/effect.md.

Finished runs are kept in runs/effect and not played again.
"""

import argparse
import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from eva import study

HOME = Path("runs/effect")
REPORT = Path(__file__).parents[1] / "docs" / "effect.md"
HEADING = "# Does evolving prompts help?"
ARMS = ("static", "new", "eva")
GRID = [(lr, beta) for lr in (2e-4, 5e-4, 1e-3) for beta in (0.3, 1.0)]
BEST = {"static": (1e-3, 1.0), "new": (1e-3, 1.0), "eva": (5e-4, 1.0)}
"""The setting with the highest mean reward on the hard set, by `--tune`; see docs/effect.md."""
SHARED = (5e-4, 1.0)
"""The setting of the shipped recipes, which is eva's best: the baselines are shown at it too."""
FRESH = range(4, 9)
"""Seeds that nothing was tuned on."""
ABLATIONS = ("oracle", "uniform", "greedy", "no-evolve")
METRICS = [
    "hard/sampled/reward",
    "hard/sampled/win_rate",
    "hard/greedy/reward",
    "hard/greedy/accuracy",
    "x0/sampled/reward",
    "x0/greedy/accuracy",
]


def recipe(arm: str, lr: float, beta: float) -> str:
    """A recipe file of an arm at a setting; its path."""
    name = f"{arm}-lr{lr:g}-beta{beta:g}"
    path = HOME / "recipes" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"base: playground-{arm}\nname: {name}\nlearner: {{lr: {lr}, beta: {beta}}}\n")
    return str(path)


def played(arms: Sequence[str], seeds: Sequence[int], jobs: int) -> list[study.Cell]:
    """All arms on all seeds, played."""
    cells = study.cells(arms, seeds, HOME)
    study.play(cells, jobs, lambda cell, t: print(cell.name, t, flush=True) if t == 8 else None)
    return cells


def table(cells: Sequence[study.Cell], against: str) -> list[str]:
    """The Markdown table of the arms and of their paired differences."""
    lines = study.markdown(study.rows(cells, METRICS, against), METRICS)
    return [line.replace(str(HOME / "recipes") + "/", "").replace(".yaml", "") for line in lines]


def write_section(report: Path, heading: str, title: str, lines: Sequence[str]) -> None:
    """Put a section into a report; its other sections stay as they are."""
    old = report.read_text("utf-8") if report.exists() else f"{heading}\n"
    head, *sections = old.split("\n## ")
    kept = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    kept[title] = "\n" + "\n".join(lines) + "\n"
    text = [head.rstrip() + "\n", *(f"## {name}\n{body}" for name, body in kept.items())]
    report.write_text("\n".join(part.rstrip("\n") + "\n" for part in text))
    print("\n".join(lines))


def main() -> None:
    """Play the grid, the ablations or the table, and write its section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    made = (
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}. Command: `python bench/effect.py"
    )
    eva = recipe("eva", *SHARED)
    if chosen.tune:
        arms = [recipe(arm, lr, beta) for arm in ARMS for lr, beta in GRID]
        lines = table(played(arms, (1, 2, 3), chosen.jobs), eva)
        write_section(REPORT, HEADING, "The grid", [f"{made} --tune`. Seeds 1 to 3.", "", *lines])
        return
    if chosen.ablations:
        arms = [*(recipe(arm, *SHARED) for arm in ABLATIONS), eva]
        lines = table(played(arms, FRESH, chosen.jobs), eva)
        write_section(
            REPORT, HEADING, "Ablations and the bound", [f"{made} --ablations`.", "", WHAT, *lines]
        )
        return
    settings = [(arm, BEST[arm]) for arm in ARMS]
    settings += [(arm, SHARED) for arm in ARMS if BEST[arm] != SHARED]
    arms = [recipe(arm, *setting) for arm, setting in settings]
    lines = table(played(arms, FRESH, chosen.jobs), eva)
    write_section(
        REPORT, HEADING, "The main claim", [f"{made}`.", "", *INTRODUCTION.splitlines(), "", *lines]
    )


INTRODUCTION = """\
Playground, DPO, graded reward, one theta_0; a shared round, then seven of each arm. Every arm draws
the same number of samples and takes the same number of optimiser steps. Learning rate and beta of
each arm are the best of the same six settings on seeds 1 to 3; this table is on seeds 4 to 8: mean
and standard error, differences paired by seed. A seed draws X_0, samples, batches and evolution;
theta_0 and the held-out sets are one draw, which the errors do not know of.

"""

WHAT = """\
The other recipes of the playground at the setting of eva, on the same seeds: new prompts of
the hard distribution itself (the bound, which no creator may see), parents drawn evenly, the top
quarter instead of a draw, and training on the selected quarter without evolving it (X_0 is
answered anew, so the samples are equal; the pairs are a quarter).
"""

if __name__ == "__main__":
    main()
