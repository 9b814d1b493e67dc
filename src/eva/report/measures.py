"""The numbers on the page: series over rounds, over steps, and the final table."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from eva.reading import Round, Run
from eva.yields import Yield, all_gates, yields

Series: TypeAlias = dict[str, list[tuple[float, float]]]
"""Points (x, y) by the label of the run."""

MODES = ("sampled", "greedy")
"""How held-out prompts are answered."""
LEARNER = ("loss", "margin", "accuracy", "grad_norm", "kl", "reward", "entropy", "lr")
"""Numbers of the learner's log, in the order in which the page prefers them."""


@dataclass(frozen=True)
class Cell:
    """A number of the final table."""

    value: float | None
    """The metric at the last checkpoint that was measured."""
    gain: float | None
    """Its difference to theta_0 of the same run."""
    best: bool
    """Whether no other run has more."""


@dataclass(frozen=True)
class Row:
    """A run in the final table."""

    label: str
    """The run, or theta_0."""
    index: int | None
    """Its colour; None for theta_0."""
    checkpoint: int | None
    """t of the checkpoint theta_t whose numbers these are."""
    cells: tuple[Cell, ...]
    """One for each column."""
    tokens: float | None
    """Tokens generated in all rounds."""
    prompts: int | None
    """Prompts answered in all rounds, n responses each."""


@dataclass(frozen=True)
class Table:
    """The final table."""

    columns: tuple[tuple[str, str, str], ...]
    """Set, mode and metric."""
    rows: tuple[Row, ...]
    """theta_0, where it is shared, and the runs."""

    @property
    def sets(self) -> list[tuple[str, int]]:
        """The held-out sets and how many columns each has."""
        return list(Counter(name for name, _, _ in self.columns).items())


def eval_sets(runs: Sequence[Run]) -> list[str]:
    """The names of the held-out sets, in the order of the recipes."""
    names: dict[str, None] = {}
    for run in runs:
        evaluate = run.recipe.get("evaluate")
        sets = evaluate.get("sets") if isinstance(evaluate, dict) else None
        names |= dict.fromkeys(sets if isinstance(sets, dict) else {})
    measured = {name.split("/")[0] for run in runs for found in run.evals.values() for name in found
                if name.count("/") == 2}  # fmt: skip
    known = [name for name in names if name in measured]
    return known + sorted(measured - set(known))


def eval_series(runs: Sequence[Run], metric: str) -> Series:
    """A metric of the held-out sets by checkpoint, e.g. "hard/sampled/reward"."""
    return {
        run.label: [(t, found[metric]) for t, found in sorted(run.evals.items()) if metric in found]
        for run in runs
    }


def round_series(runs: Sequence[Run], pick: Callable[[Round], float | None]) -> Series:
    """A number of each round."""
    series: Series = {}
    for run in runs:
        pairs = [(played.number, pick(played)) for played in run.rounds]
        series[run.label] = [(t, value) for t, value in pairs if value is not None]
    return series


def mean_words(played: Round) -> float | None:
    """Mean number of words of the prompts that the learner got, all turns of a chat together.

    The metric `words` if the round has it, else counted.
    """
    if "words" in played.metrics:
        return played.metrics["words"]
    chats = [lesson.prompt.messages for lesson in played.lessons]
    words = sum(len(message.content.split()) for chat in chats for message in chat)
    return words / len(chats) if chats else None


def learner_metrics(runs: Sequence[Run]) -> list[str]:
    """Names of the numbers that some learner logged, at most four."""
    known = {
        name for run in runs for played in run.rounds for step in played.steps for name in step
    }
    return [name for name in LEARNER if name in known][:4]


def step_series(runs: Sequence[Run], metric: str, most: int = 600) -> tuple[Series, Series]:
    """A number of the learner's log by step, counted through all rounds.

    Returns:
        Every point (thinned to at most `most`), and moving means within each round: the reference
        policy changes between rounds, so a mean over the border would mean nothing.
    """
    raw: Series = {}
    smooth: Series = {}
    for run in runs:
        raw[run.label], smooth[run.label], begin = [], [], 0
        total = sum(len(played.steps) for played in run.rounds)
        stride = max(1, -(-total // most))
        for played in run.rounds:
            values = [step.get(metric) for step in played.steps]
            for place in range(0, len(values), stride):
                value, reach = values[place], max(2, len(values) // 8, stride)
                near = values[max(0, place - reach) : place + reach + 1]
                known = [v for v in near if v is not None]
                if value is None:
                    continue
                raw[run.label].append((begin + place, value))
                smooth[run.label].append((begin + place, sum(known) / len(known)))
            begin += len(values)
    return raw, smooth


def round_borders(runs: Sequence[Run]) -> dict[str, list[float]]:
    """The steps, counted through all rounds, at which the rounds of each run begin."""
    borders: dict[str, list[float]] = {}
    for run in runs:
        ends = itertools.accumulate(len(played.steps) for played in run.rounds if played.steps)
        borders[run.label] = [float(end) for end in ends][:-1]
    return borders


def final_table(runs: Sequence[Run]) -> Table:
    """Where each run ended: its last measured checkpoint on every held-out set."""
    columns = []
    for name in eval_sets(runs):
        wanted = [(name, mode, metric) for metric in ("reward", "accuracy") for mode in MODES]
        wanted.append((name, "sampled", "win_rate"))
        known = {key for run in runs for found in run.evals.values() for key in found}
        columns += [column for column in wanted if "/".join(column) in known]
    last = [_last(run) for run in runs]
    best = {c: max((found[c] for found in last if c in found), default=None)
            for c in map("/".join, columns)}  # fmt: skip
    rows = []
    starts = [run.evals.get(0) for run in runs]
    first = starts[0]
    if first and all(start == first for start in starts):
        cells = tuple(Cell(first.get("/".join(column)), None, False) for column in columns)
        rows.append(Row("start", None, 0, cells, None, None))
    for index, (run, found) in enumerate(zip(runs, last, strict=True)):
        rows.append(_row(run, index, found, columns, best if len(runs) > 1 else {}))
    return Table(tuple(columns), tuple(rows))


def _last(run: Run) -> dict[str, float]:
    return run.evals[max(run.evals)] if run.evals else {}


def _row(
    run: Run,
    index: int,
    found: dict[str, float],
    columns: Sequence[tuple[str, str, str]],
    best: dict[str, float | None],
) -> Row:
    start = run.evals.get(0, {})
    cells = []
    for name in map("/".join, columns):
        value, before = found.get(name), start.get(name)
        gain = None if value is None or before is None else value - before
        cells.append(Cell(value, gain, value is not None and value == best.get(name)))
    tokens = [p.metrics["tokens"] for p in run.rounds if "tokens" in p.metrics]
    prompts = sum(len(played.tried) + len(played.solved) for played in run.rounds)
    last = max(run.evals) if run.evals else None
    return Row(run.label, index, last, tuple(cells), sum(tokens) if tokens else None, prompts)


@dataclass(frozen=True)
class Creation:
    """What the creator of one run did."""

    label: str
    """The run."""
    index: int
    """Its colour."""
    written: int
    """Children in all."""
    admitted: int
    """Those that became prompts."""
    fates: tuple[str, ...]
    """"admitted", then reasons of refusal by frequency."""
    fate_counts: tuple[tuple[int, str, int], ...]
    """Round, fate, number."""
    methods: tuple[str, ...]
    """Operators by frequency."""
    method_counts: tuple[tuple[int, str, int], ...]
    """Round, operator, number."""
    changes: tuple[tuple[str, int, int, float | None], ...]
    """The most frequent changes: words, written, admitted, mean reward of the admitted."""
    yields: tuple[Yield, ...]
    """What became of the children of each operator and writer."""

    @property
    def gates(self) -> list[str]:
        """The gates that refused children, the one that refused most first."""
        return all_gates(self.yields)


LEFT = "left over"
"""Fate of a child without flaw that was not taken."""


def creation(run: Run, index: int, reasons: int = 5, changes: int = 10) -> Creation | None:
    """What the creator did, or None if it never wrote a child."""
    fates: Counter[tuple[int, str]] = Counter()
    methods: Counter[tuple[int, str]] = Counter()
    for played in run.rounds:
        taken = {prompt.id for prompt in played.born}
        for child in played.children:
            flaw = LEFT if child.flaw is None else _reason(child.flaw)
            admitted = child.flaw is None and child.id in taken
            taken.discard(child.id if admitted else "")
            fates[played.number, "admitted" if admitted else flaw] += 1
            methods[played.number, child.method] += 1
    if not fates:
        return None
    names = [name for name in _ranked(fates) if name != "admitted"]
    kept = ["admitted", *names[:reasons]] + (["other reasons"] if names[reasons:] else [])
    operators = _ranked(methods)[:8]
    return Creation(
        label=run.label,
        index=index,
        written=fates.total(),
        admitted=sum(count for (_, fate), count in fates.items() if fate == "admitted"),
        fates=tuple(kept),
        fate_counts=_folded(fates, kept, "other reasons"),
        methods=tuple(operators),
        method_counts=_folded(methods, operators, operators[-1]),
        changes=tuple(_changes(run, changes)),
        yields=yields(child for played in run.rounds for child in played.children),
    )


def _reason(flaw: str) -> str:
    """A flaw without the parts that differ from child to child: quoted words and what follows."""
    head = flaw.strip().splitlines()[0] if flaw.strip() else "no reason given"
    words = ["…" if _varies(word) else word for word in head.split()[:12]]
    kept = [word for n, word in enumerate(words) if word != "…" or n == 0 or words[n - 1] != "…"]
    return " ".join(kept)[:60] or "no reason given"


def _varies(word: str) -> bool:
    return any(c.isdigit() for c in word) or word[0] in "'\"`" or word[-1] in "'\"`"


def _ranked(counts: Counter[tuple[int, str]]) -> list[str]:
    totals: Counter[str] = Counter()
    for (_, name), count in counts.items():
        totals[name] += count
    return [name for name, _ in sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))]


def _folded(
    counts: Counter[tuple[int, str]], kept: Sequence[str], rest: str
) -> tuple[tuple[int, str, int], ...]:
    folded: Counter[tuple[int, str]] = Counter()
    for (number, name), count in counts.items():
        folded[number, name if name in kept else rest] += count
    order = {name: place for place, name in enumerate(kept)}
    rows = [(number, name, count) for (number, name), count in folded.items()]
    return tuple(sorted(rows, key=lambda row: (row[0], order.get(row[1], 0))))


def _changes(run: Run, most: int) -> list[tuple[str, int, int, float | None]]:
    """The most frequent changes; nothing if hardly any change occurs twice (free rewriting)."""
    written: Counter[str] = Counter()
    rewards: dict[str, list[float]] = {}
    admitted: Counter[str] = Counter()
    for played in run.rounds:
        for child in played.children:
            written[child.change] += 1
        for prompt in played.born:
            admitted[prompt.change] += 1
        born = {prompt.id for prompt in played.born}
        for solved in played.solved:
            if solved.prompt.id in born:
                known = [reward for reward in solved.rewards if reward is not None]
                rewards.setdefault(solved.prompt.change, []).extend(known)
    rows: list[tuple[str, int, int, float | None]] = []
    for change, count in written.most_common(most):
        known = rewards.get(change, [])
        if change and count > 2:
            mean = sum(known) / len(known) if known else None
            rows.append((change, count, admitted[change], mean))
    return rows
