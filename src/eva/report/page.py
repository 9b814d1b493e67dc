"""The page of runs: run directories in, one HTML text out that needs nothing but a browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eva.reading import Round, Run, read_runs
from eva.report import charts, compared, families, measures
from eva.report.sheet import Charts, Figure, sheet

METRICS = {
    "reward": "mean reward",
    "accuracy": "share answered right",
    "win_rate": "win rate against θ₀",
}
"""Metrics of the held-out sets, in words."""


@dataclass(frozen=True)
class Story:
    """What the creator of one run wrote."""

    label: str
    index: int
    creation: measures.Creation
    figures: tuple[Figure, ...]
    generations: tuple[families.Generation, ...]
    roots: tuple[families.Node, ...]


def page(runs: Sequence[Path], *, watched: bool = False) -> str:
    """One self-contained HTML page about one or several runs; it fetches nothing.

    Args:
        runs: Run directories, finished or not.
        watched: Whether `eva report --watch` serves it, so that it asks for its next state.

    Raises:
        RunDirError: A folder is no run directory, or a file in it is damaged.
    """
    drawn = Charts()
    fields = _fields(read_runs(runs), drawn)
    return sheet("page.html.j2", fields, drawn, watched=watched)


def picture(runs: Sequence[Path]) -> str:
    """The learning curves on every held-out set side by side, as one SVG.

    Args:
        runs: Run directories, finished or not.

    Raises:
        RunDirError: A folder is no run directory, or a file in it is damaged.
    """
    found = read_runs(runs)
    sets = measures.eval_sets(found)
    panels = {f"held-out set “{name}”": measures.eval_series(found, f"{name}/sampled/reward")
              for name in sets}  # fmt: skip
    return charts.svg(panels or {"nothing was measured yet": {}}, "mean reward, sampled")


def _fields(runs: Sequence[Run], drawn: Charts) -> dict[str, object]:
    """What the template needs, section by section."""
    made = [(n, run, measures.creation(run, n)) for n, run in enumerate(runs)]
    prompts_differ, others = compared.differences(runs)
    return {
        "title": "eva · " + ", ".join(run.label for run in runs),
        "runs": runs,
        "arms": [compared.arm(run.recipe) for run in runs],
        "seeds": compared.seeds(runs),
        "prompts_differ": prompts_differ,
        "others": others,
        "table": measures.final_table(runs),
        "metrics": METRICS,
        "curves": _learning_curves(runs, drawn),
        "pool": _pool(runs, drawn),
        "stories": [_story(run, n, creation, drawn) for n, run, creation in made if creation],
        "learner": _learner(runs, drawn),
        "settings": compared.settings(runs),
        "facts": compared.facts(runs),
        "limits": families,
        "unfinished": [_unfinished(run) for run in runs],
    }


def _learning_curves(runs: Sequence[Run], drawn: Charts) -> dict[str, list[Figure]]:
    """Figures by metric: every held-out set, sampled and greedy."""
    found: dict[str, list[Figure]] = {}
    for metric, words in METRICS.items():
        for name in measures.eval_sets(runs):
            for mode in measures.MODES:
                series = measures.eval_series(runs, f"{name}/{mode}/{metric}")
                if any(series.values()):
                    spec = charts.curves(series, x="checkpoint")
                    figure = drawn.figure(spec, f"Held-out “{name}”, {mode}", words)
                    found.setdefault(metric, []).append(figure)
    return found


def _pool(runs: Sequence[Run], drawn: Charts) -> list[Figure]:
    """What the learner got, by round."""

    def metric(name: str) -> measures.Series:
        return measures.round_series(runs, lambda played: played.metrics.get(name))

    wanted = [
        ("Spread of rewards", "best minus worst response of a prompt, mean; what can be learnt",
         metric("spread"), False),
        ("Reward", "mean; falls when prompts get harder, rises when the policy gets better",
         metric("reward"), False),
        ("Usable prompts", "share whose best response is better than the worst",
         metric("usable"), True),
        ("Length of prompts", "mean number of words, a rough measure of difficulty",
         measures.round_series(runs, measures.mean_words), False),
    ]  # fmt: skip
    return [
        drawn.figure(charts.curves(series, x="round", whole=whole), title, note)
        for title, note, series, whole in wanted
        if any(series.values())
    ]


def _learner(runs: Sequence[Run], drawn: Charts) -> list[Figure]:
    """The learner's log by step."""
    borders = measures.round_borders(runs)
    figures = []
    for name in measures.learner_metrics(runs):
        raw, smooth = measures.step_series(runs, name)
        spec = charts.steps(raw, smooth, borders, x="step")
        figures.append(drawn.figure(spec, name.replace("_", " ").capitalize()))
    return figures


def _story(run: Run, index: int, made: measures.Creation, drawn: Charts) -> Story:
    known = families.kin(run)
    colours = [charts.colour(n) for n in range(len(made.methods))]
    fates = charts.FATES[: len(made.fates)]
    fated = charts.stacks(made.fate_counts, made.fates, fates, shares=False)
    methods = charts.stacks(made.method_counts, made.methods, colours, shares=True)
    return Story(
        label=run.label,
        index=index,
        creation=made,
        figures=(
            drawn.figure(fated, "What became of the children", "number by round"),
            drawn.figure(methods, "Operators", "share of the children by round"),
        ),
        generations=tuple(families.generations(run, known)),
        roots=tuple(families.lineage(known)),
    )


def _unfinished(run: Run) -> str:
    """How far a run is, or nothing if it has ended."""
    if run.played >= run.planned:
        return ""
    last: Round | None = run.rounds[-1] if run.rounds else None
    said = f"{run.played} of {run.planned} rounds are finished"
    if last is not None and not last.finished and last.stage not in (None, "pool"):
        said += f"; round {last.number} has got as far as “{last.stage}”"
    return said
