"""Does evolving prompts help every solver? Each arm tuned as hard, and told on fresh seeds.

    python bench/solvers.py --tune    # 6 or 8 settings x 3 arms x seeds 1 to 3 for each solver
    python bench/solvers.py           # each arm at its best, seeds 4 to 8: writes docs/solvers.md

Finished runs are kept in runs/solvers and not played again.
"""

import argparse
import json
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TypeAlias

import effect
from eva import study

HOME = Path("runs/solvers")
REPORT = Path(__file__).parents[1] / "docs" / "solvers.md"
TUNED = Path(__file__).with_name("solvers.json")
"""The best setting of each solver and arm, written by `--tune`."""
ARMS = ("static", "new", "eva")
HARD = "hard/sampled/reward"
METRICS = [
    HARD,
    "hard/sampled/win_rate",
    "hard/greedy/reward",
    "x0/sampled/reward",
    "x0/greedy/accuracy",
]
Setting: TypeAlias = dict[str, float | str]

LR = {
    "dpo": (2e-4, 5e-4, 1e-3),
    "sppo": (1e-4, 2e-4, 5e-4),
    "simpo": (5e-5, 1e-4, 2e-4, 5e-4),
    "orpo": (2e-4, 5e-4, 1e-3),
    "rloo": (1e-4, 3e-4, 6e-4, 1.2e-3),
    "online-dpo": (2e-4, 5e-4, 1e-3),
}
"""Learning rates tried; extended where an arm was best at the edge."""
OTHER: dict[str, tuple[Setting, Setting]] = {
    "dpo": ({"beta": 0.3}, {"beta": 1.0}),
    "sppo": ({"labels": "bradley_terry", "beta": 0.1}, {"labels": "hard", "beta": 0.3}),
    "simpo": ({"beta": 1.0}, {"beta": 2.0}),
    "orpo": ({"beta": 0.3}, {"beta": 1.0}),
    "rloo": ({"kl": 0.0}, {"kl": 0.03}),
    "online-dpo": ({"beta": 0.3}, {"beta": 1.0}),
}
"""What else is tried with each of them."""


def grid(solver: str) -> list[Setting]:
    """Three or four learning rates, each with two values of what else matters."""
    return [{"lr": lr, **other} for lr, other in product(LR[solver], OTHER[solver])]


def recipe(solver: str, arm: str, setting: Setting) -> str:
    """A recipe file of an arm at a setting; its path."""
    base = "playground-eva" if solver == "dpo" else f"playground-{solver}"
    values = "-".join(f"{key}{value}" for key, value in setting.items())
    path = HOME / "recipes" / f"{solver}-{arm}-{values}.yaml"
    lines = [f"base: {base}", f"name: {path.stem}", f"learner: {json.dumps(setting)}"]
    lines.append("evaluate: {every: 8}")  # theta_0 and the end; evaluating is half of the time
    if arm != "eva":
        lines.append("creator: null")
    if arm == "new":
        lines.append("new_prompts: {kind: playground, set: new, n: 1792}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def played(arms: Sequence[str], seeds: Sequence[int], jobs: int) -> list[study.Cell]:
    """All arms on all seeds, played."""
    cells = study.cells(arms, seeds, HOME)
    study.play(cells, jobs, lambda cell, t: print(cell.name, t, flush=True) if t == 8 else None)
    return cells


def tune(solvers: Sequence[str], jobs: int) -> None:
    """Play the grids, remember each arm's best by mean reward on the hard set, and show them."""
    names = {
        (solver, arm, number): recipe(solver, arm, setting)
        for solver in solvers
        for number, setting in enumerate(grid(solver))
        for arm in ARMS
    }
    cells = played(list(names.values()), (1, 2, 3), jobs)
    best: dict[str, dict[str, Setting]] = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    for solver in solvers:
        arms = {path: key for key, path in names.items() if key[0] == solver}
        of_solver = [cell for cell in cells if cell.arm in arms]
        rows = study.rows(of_solver, METRICS, next(iter(arms)))
        shown = {Path(path).stem: key for path, key in arms.items()}
        means = {shown[r.name]: r.values[HARD].mean for r in rows if r.name in shown}
        best[solver] = {
            arm: grid(solver)[max((k for k in means if k[1] == arm), key=means.__getitem__)[2]]
            for arm in ARMS
        }
        kept = [row for row in rows if row.name in shown]
        write_section(f"The grid of {solver}", list(study.markdown(kept, METRICS)))
    TUNED.write_text(json.dumps(best, indent=1) + "\n")


def tell(solvers: Sequence[str], jobs: int) -> None:
    """Play each arm at its best on fresh seeds, and write the tables."""
    best: dict[str, dict[str, Setting]] = json.loads(TUNED.read_text())
    for arm, (lr, beta) in effect.BEST.items():  # of the same grid, in docs/effect.md
        best.setdefault("dpo", {}).setdefault(arm, {"lr": lr, "beta": beta})
    arms = {
        (solver, arm): recipe(solver, arm, best[solver][arm]) for solver in solvers for arm in ARMS
    }
    cells = played(list(arms.values()), effect.FRESH, jobs)
    lines = [
        INTRODUCTION,
        "| solver | set | static | new | eva | eva - static | eva - new |",
        "|---" * 7 + "|",
    ]
    for solver in solvers:
        paths = [arms[solver, arm] for arm in ARMS]
        rows = study.rows([cell for cell in cells if cell.arm in paths], METRICS, paths[-1])
        for name, metric in (("hard", HARD), ("x0", "x0/sampled/reward")):
            ends = [study.shown(row.values[metric]) for row in rows[-5:]]
            lines.append(f"| {solver} | {name} | {' | '.join(ends)} |")
    write_section("The table", lines)
    for solver in solvers:
        paths = [arms[solver, arm] for arm in ARMS]
        rows = study.rows([cell for cell in cells if cell.arm in paths], METRICS, paths[-1])
        write_section(f"{solver} in detail", list(study.markdown(rows, METRICS)))


def write_section(title: str, lines: Sequence[str]) -> None:
    """Put a section into the report; its other sections stay as they are."""
    effect.write_section(REPORT, "# Every solver", title, lines)


def main() -> None:
    """Tune, or tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--solver", action="append", choices=list(LR))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    (tune if chosen.tune else tell)(chosen.solver or list(LR), chosen.jobs)


INTRODUCTION = """\
Playground, graded reward, one theta_0, eight rounds of 256 prompts x 8 samples; offline solvers
take 24 steps of 32 pairs a round, online ones 16 of 16 prompts. *static* goes on with X_0, *new*
takes 256 new prompts of the same distribution each round, *eva* evolves. Settings of each arm: the
best of its grid on seeds 1 to 3 (bench/solvers.json). Mean reward of samples at temperature 1 on
the held-out sets, seeds 4 to 8, with the standard error; differences are paired by seed. Command:
`python bench/solvers.py`.
"""

if __name__ == "__main__":
    main()
