"""The results page of a study, as Markdown: docs/results/<name>.md.

It says what was asked, what came of the claims, whether the budgets were equal, and then shows the
tables; whatever is long is folded. The same findings give the same bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from pydantic import JsonValue

from eva.findings import (
    MINUS,
    UNEQUAL,
    Findings,
    Made,
    Measured,
    Picture,
    Place,
    Row,
    Tuned,
    Verdict,
    counted,
    decimal,
    decimals,
    listed,
    mean_told,
    pictures_of,
    places,
    ran,
    told,
)
from eva.study.spent import BY_NATURE, SHOULD_BE_EQUAL, WORDS

MISSING = "\u2013"
"""Printed where a number is missing: an en dash."""
COUNTED = {count: noun for count, (_, noun) in WORDS.items()} | {"evolver_calls": "prompts evolved"}
"""What is counted, in words that stand alone."""
_SIGNS = re.compile(r"([\\`*\[\]#]|(?<!\w)_|_(?!\w))")
"""What Markdown prints as it stands only after a backslash ..."""
_ENTITIES = re.compile(r"[|~$]|<(?=[\w/!?])|&(?=#?\w+;)")
"""... and what not every reader of Markdown prints even then ..."""
_BEGINS = re.compile(r"^(?:[-+>=:!?]|\d+[.)](?=\s|$))")
"""... and what makes of a line a list, a quote, a rule or a note."""


def markdown(findings: Findings, made: Made) -> str:
    """The page of a study.

    Args:
        findings: What it found.
        made: Where and how it was made.
    """
    drawn = pictures_of(findings)
    parts = [
        f"# {_text(findings.name)}",
        _text(findings.question),
        _facts(made),
        f"```\n{made.command}\n```",
        *_claims(findings),
        *_budget(findings),
        *_ends(findings),
        *(_image(one) for one in drawn if one.kind != "curves"),
        *_rounds(drawn),
        *_grid(findings),
        *_spent(findings),
        *_failed(findings),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(made: Made) -> str:
    """One line: when, with what, how long."""
    commit = f"commit {made.commit}" if made.commit else "no commit"
    versions = [f"{name} {version}" for name, version in sorted(made.versions.items())]
    jobs = f"{made.jobs} process{'' if made.jobs == 1 else 'es'}"
    took = f"{made.minutes:.1f} minutes with {jobs} ({made.cpu_minutes:.1f} of CPU)"
    return (
        _text(", ".join([made.date.partition("T")[0], commit, *versions]))
        + f". It took {took}. Remade by:"
    )


def _claims(findings: Findings) -> Iterator[str]:
    judged = [_judged(verdict) for verdict in findings.verdicts]
    judged += [_text(sentence) for sentence in findings.unjudged]
    if judged:
        yield "## Claims"
        yield "\n".join(f"- {sentence}" for sentence in judged)
    if findings.verdicts:
        asked = len(findings.verdicts) + len(findings.unjudged)
        correction = f"after Holm's correction for all {asked}"
        if asked == 1:
            correction = "with no correction, for there is one"
        yield (
            "A claim holds, or does not hold, where the p of its paired t-test over seeds is below "
            f"0.05 {correction}; else it is not resolved. Intervals are bootstrap intervals over "
            "seeds, which are too short for few of them: of five, one that is said to hold the "
            "truth in 95 of 100 cases does in about 85."
        )


def _judged(verdict: Verdict) -> str:
    said = _text(verdict.sentence)
    return said.replace(f": {verdict.outcome}", f": **{verdict.outcome}**", 1)


def _budget(findings: Findings) -> Iterator[str]:
    loud = [one for one in findings.unequal if one.startswith(UNEQUAL)]
    quiet = [one for one in findings.unequal if not one.startswith(UNEQUAL)]
    if not loud and findings.equal:
        same = listed([COUNTED[name] for name in findings.equal])
        quiet = [f"All arms spent as many {same}.", *quiet]
    if loud or quiet:
        yield "## Budget"
        yield " ".join([*(f"**{_text(one)}**" for one in loud), *map(_text, quiet)])


def _ends(findings: Findings) -> Iterator[str]:
    """A table of arms and one of differences for each place; places along an axis share one."""
    yield "## At the end"
    yield _legend(findings)
    for place in _grouped(findings):
        here = [row for row in findings.rows if place.items() <= row.place.items()]
        if place:
            yield f"### {_text(told(place))}"
        yield from _tables(findings, here)


def _legend(findings: Findings) -> str:
    seeds = _seeds(cell.seed for cell in findings.cells if cell.use == "table")
    said = f"Mean ± standard error; {seeds}."
    for name in findings.pooled:
        levels = ", ".join(findings.factors[name])
        said += (
            f" Runs of one seed are averaged over the levels of {name} ({levels}) first; errors "
            "are those of seeds, and say nothing of other levels."
        )
    if any(row.leads for row in findings.rows):
        said += " Bold: above every other arm beyond noise."
    return _text(said)


def _tables(findings: Findings, here: Sequence[Row]) -> Iterator[str]:
    axes, metrics = findings.axes, findings.metrics
    arms = [row for row in here if row.minus is None]
    yield _table(
        [*axes, "arm", *metrics, "runs"],
        [
            [
                *_levels(row, axes),
                _text(row.arm),
                *(_shown(row, m) for m in metrics),
                ran(findings, row),
            ]
            for row in arms
        ],
        left=len(axes) + 1,
    )
    gaps = [row for row in here if row.minus is not None]
    if gaps:
        yield "Differences of runs on the same seed, with 95 % intervals:"
        yield _table(
            [*axes, "difference", *metrics, "pairs"],
            [
                [
                    *_levels(row, axes),
                    _text(f"{row.arm} {MINUS} {row.minus}"),
                    *(_difference(row.values.get(m)) for m in metrics),
                    ran(findings, row),
                ]
                for row in gaps
            ],
            left=len(axes) + 1,
        )


def _rounds(drawn: Sequence[Picture]) -> Iterator[str]:
    images = [_image(one) for one in drawn if one.kind == "curves"]
    if images:
        yield "## Over rounds"
        yield "Mean over seeds; the band is one standard error to each side."
        yield from images


def _grid(findings: Findings) -> Iterator[str]:
    """The settings that were tried, folded."""
    if not findings.tuned:
        return
    seeds = _seeds(cell.seed for cell in findings.cells if cell.use == "tune")
    factors = list(dict.fromkeys(name for one in findings.tuned for name in one.place))
    keys = list(dict.fromkeys(key for one in findings.tuned for key in one.setting))
    by = findings.tuned_by or "value"
    rows = [
        [*(_text(one.place[name]) for name in factors), _text(one.arm),
         *(_text(_setting(one, key)) for key in keys),
         _mean(one.value), counted(one.value), "chosen" if one.is_chosen else ""]
        for one in findings.tuned
    ]  # fmt: skip
    table = _table([*factors, "arm", *keys, by, "runs", ""], rows, left=len(factors) + 1)
    yield _folded(f"Settings tried on {seeds}; {findings.choice} is chosen", table)


def _spent(findings: Findings) -> Iterator[str]:
    """What a run of each arm used, folded."""
    if not findings.spent:
        return
    counted = dict.fromkeys(count for one in findings.spent for count in one.counts)
    known = [count for count in (*SHOULD_BE_EQUAL, *BY_NATURE) if count in counted]
    counts = known + [count for count in counted if count not in known]
    factors = list(dict.fromkeys(name for one in findings.spent for name in one.place))
    rows = [
        [*(_text(one.place[name]) for name in factors), _text(one.arm),
         *(f"{one.counts[c]:,.0f}" if c in one.counts else MISSING for c in counts)]
        for one in findings.spent
    ]  # fmt: skip
    heads = [COUNTED.get(count, count) for count in counts]
    table = _table([*factors, "arm", *heads], rows, left=len(factors) + 1)
    yield _folded("What one run spent, mean over runs", table)


def _failed(findings: Findings) -> Iterator[str]:
    gone = [cell for cell in findings.cells if cell.failed]
    if gone:
        yield "## Failed"
        yield "These runs have no result and are left out above; the command tries them again."
        yield "\n".join(f"- {_text(f'{cell.path}: {cell.failed}')}" for cell in gone)


def _grouped(findings: Findings) -> list[Place]:
    """The places, those that differ by the level of an axis as one."""
    found: list[Place] = []
    for place in places(findings):
        rest = {name: level for name, level in place.items() if name not in findings.axes}
        if rest not in found:
            found.append(rest)
    return found


def _levels(row: Row, axes: Sequence[str]) -> list[str]:
    return [_text(row.place[name]) for name in axes]


def _shown(row: Row, metric: str) -> str:
    shown = _mean(row.values.get(metric))
    return f"**{shown}**" if metric in row.leads else shown


def _mean(value: Measured | None) -> str:
    return MISSING if value is None else mean_told(value)


def _difference(value: Measured | None) -> str:
    if value is None:
        return MISSING
    n = decimals(value)
    shown = decimal(value.mean, n)
    if value.low is None or value.high is None:
        return shown
    return f"{shown} ({decimal(value.low, n)} to {decimal(value.high, n)})"


def _setting(one: Tuned, key: str) -> str:
    value: JsonValue = one.setting.get(key, MISSING)
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _seeds(seeds: Iterable[int]) -> str:
    """Seeds in words: "seed 4", "seeds 4, 7", "seeds 4 to 8"."""
    found = sorted({*seeds})
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"seeds {found[0]} to {found[-1]}"
    return f"seed{'' if len(found) == 1 else 's'} {', '.join(map(str, found)) or MISSING}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A table of Markdown whose first `left` columns are texts and whose others are numbers."""
    lines = ["| " + " | ".join(_text(name) for name in head) + " |"]
    lines.append("|" + "|".join("---" if k < left else "---:" for k in range(len(head))) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _image(one: Picture) -> str:
    where = [told(place) for place in one.places if place]
    what = {"differences": "Differences with 95 % intervals: ", "axis": f"By {one.factor}: "}
    words = what.get(one.kind, "Over rounds: ") + ", ".join(one.metrics)
    return f"![{_text(words + (' with ' + '; '.join(where) if where else ''))}]({one.file})"


def _folded(title: str, body: str) -> str:
    return f'<details markdown="1">\n<summary>{_text(title)}</summary>\n\n{body}\n\n</details>'


def _text(text: str) -> str:
    """A text that Markdown prints as it stands, on one line."""
    line = _SIGNS.sub(r"\\\1", " ".join(text.split()))
    line = _ENTITIES.sub(lambda sign: f"&#{ord(sign[0])};", line)
    return _BEGINS.sub(lambda sign: f"{sign[0][:-1]}&#{ord(sign[0][-1])};", line)
