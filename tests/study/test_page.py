"""The results page: what a reader finds on it, and that it is Markdown whatever texts it gets."""

import re

import pytest

from eva.findings import (
    UNEQUAL,
    Cell,
    Findings,
    Line,
    Made,
    Measured,
    Row,
    Spent,
    Tuned,
    Verdict,
)
from eva.study.page import MISSING, markdown

HARD, X0 = "hard/sampled/reward", "x0/sampled/reward"
MADE = Made(
    command="eva study studies/main.yaml --results docs/results",
    date="2026-11-22T06:12+00:00",
    commit="1655fea",
    versions={"torch": "2.13.0", "numpy": "2.4.6"},
    minutes=34.24,
    cpu_minutes=120.0,
    jobs=4,
)


def measured(mean, missing=0, runs=10):
    if runs == 1:
        return Measured(mean=mean, error=None, low=None, high=None, runs=1, missing=missing)
    return Measured(
        mean=mean, error=0.004, low=mean - 0.01, high=mean + 0.02, runs=runs, missing=missing
    )


def row(arm, hard, x0, place=None, **keys):
    values = {HARD: hard, X0: x0}
    known = {metric: value for metric, value in values.items() if value}
    return Row(place=place or {}, arm=arm, values=known, **keys)


def cell(arm, seed, use="table", failed=None, **keys):
    path = f"cells/{arm}/as-is/seed{seed}"
    fields = {"place": {}, "setting": {}, "path": path, "use": use} | keys
    return Cell(arm=arm, seed=seed, failed=failed, **fields)


def findings(**keys):
    counts = {"prompts": 2048.0, "samples": 16384.0, "steps": 512.0, "tokens": 123456.7}
    fields = {
        "name": "main",
        "question": "Do evolved prompts help?",
        "arms": ("new", "eva"),
        "factors": {},
        "pooled": (),
        "axes": (),
        "metrics": (HARD, X0),
        "rows": (
            row("theta_0", measured(0.447, runs=1), measured(0.662, runs=1)),
            row("new", measured(0.486, missing=1, runs=9), measured(0.881, runs=9, missing=1)),
            row("eva", measured(0.52), measured(0.849), leads=(HARD,)),
            row("eva", measured(0.034), measured(-0.032), minus="new"),
        ),
        "spent": tuple(Spent(place={}, arm=arm, counts=counts) for arm in ("new", "eva")),
        "unequal": (),
        "equal": ("prompts", "samples", "steps"),
        "verdicts": (),
        "lines": (),
        "tuned": (),
        "cells": tuple(cell("eva", seed) for seed in (4, 5, 6)),
    }
    return Findings(**fields | keys)


def verdict(outcome="holds", **keys):
    fields = {
        "place": {},
        "better": "eva",
        "than": "new",
        "on": HARD,
        "by": 0.0,
        "difference": measured(0.034),
        "p": 0.001,
        "corrected": 0.002,
        "outcome": outcome,
        "sentence": f"On {HARD} eva ends 0.034 above new (10 pairs): {outcome}; else: {outcome}.",
    }
    return Verdict(**fields | keys)


def table(page, head):
    """The rows of the table whose first column has a head."""
    lines = page.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith(f"| {head} |"))
    found = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        found.append([part.strip() for part in line.strip("|").split("|")])
    return [found[0], *found[2:]]


def test_the_page_begins_with_the_question_and_how_it_was_made():
    page = markdown(findings(), MADE)
    assert page.startswith(
        "# main\n\nDo evolved prompts help?\n\n"
        "2026-11-22, commit 1655fea, numpy 2.4.6, torch 2.13.0. It took 34.2 minutes with 4 "
        "processes (120.0 of CPU). Remade by:\n\n"
        "```\neva study studies/main.yaml --results docs/results\n```\n"
    )
    alone = MADE.model_copy(update={"commit": None, "jobs": 1})
    assert "2026-11-22, no commit, numpy" in markdown(findings(), alone)
    assert "with 1 process (" in markdown(findings(), alone)


def test_the_same_findings_give_the_same_page():
    assert markdown(findings(), MADE) == markdown(findings(), MADE)


def test_claims_are_sentences_with_their_outcome_in_bold():
    said = ("eva cannot be set against static.",)
    page = markdown(findings(verdicts=(verdict(), verdict("not resolved")), unjudged=said), MADE)
    assert (
        f"## Claims\n\n- On {HARD} eva ends 0.034 above new (10 pairs): **holds**; else: holds.\n"
        f"- On {HARD} eva ends 0.034 above new (10 pairs): **not resolved**; else: not resolved.\n"
        "- eva cannot be set against static.\n" in page
    )
    # the one that nothing speaks of was claimed too
    assert "Holm's correction for all 3; else" in page
    alone = markdown(findings(verdicts=(verdict(),)), MADE)
    assert "0.05 with no correction, for there is one; else" in alone
    assert "## Claims" not in markdown(findings(), MADE)
    assert "Holm" not in markdown(findings(unjudged=said), MADE)


def test_equal_budgets_are_said_above_the_table():
    page = markdown(findings(unequal=("eva generates 1.08 times the tokens of new.",)), MADE)
    assert page.index("## Budget") < page.index("## At the end")
    assert (
        "All arms spent as many prompts, samples and gradient steps. eva generates 1.08 times the "
        "tokens of new.\n" in page
    )


def test_unequal_budgets_are_said_first_and_loudly():
    page = markdown(findings(unequal=(f"{UNEQUAL}eva draws 2.00 times.", "eva more.")), MADE)
    assert "\n**Not at equal budget: eva draws 2.00 times.** eva more.\n" in page
    assert "All arms" not in page


def test_only_what_was_found_equal_is_called_so():
    said = ("Not counted in any arm: samples.",)
    page = markdown(findings(equal=("prompts", "steps"), unequal=said), MADE)
    assert "All arms spent as many prompts and gradient steps. Not counted in any" in page
    page = markdown(findings(equal=(), unequal=said), MADE)
    assert "## Budget\n\nNot counted in any arm: samples.\n" in page
    assert "## Budget" not in markdown(findings(equal=()), MADE)


def test_the_table_has_means_with_errors_and_what_leads_in_bold():
    page = markdown(findings(), MADE)
    assert table(page, "arm")[:4] == [
        ["arm", HARD, X0, "runs"],
        ["theta_0", "0.447", "0.662", "1"],
        ["new", "0.486 ± 0.004", "0.881 ± 0.004", "9 of 10"],
        ["eva", "**0.520 ± 0.004**", "0.849 ± 0.004", "10"],
    ]
    assert table(page, "difference") == [
        ["difference", HARD, X0, "pairs"],
        ["eva \u2212 new", "0.034 (0.024 to 0.054)",
         "\u22120.032 (\u22120.042 to \u22120.012)", "10"],
    ]  # fmt: skip
    assert "Mean ± standard error; seeds 4 to 6. Bold: above every other arm beyond noise." in page


def test_what_is_missing_is_a_dash():
    rows = (row("new", measured(0.5, runs=1), None), row("eva", None, None),
            row("eva", measured(0.1, runs=1), None, minus="new"))  # fmt: skip
    page = markdown(findings(rows=rows, cells=(cell("new", 4),), spent=()), MADE)
    assert table(page, "arm") == [
        ["arm", HARD, X0, "runs"], ["new", "0.500", MISSING, "1"], ["eva", MISSING, MISSING, "0"],
    ]  # fmt: skip
    assert table(page, "difference")[1] == ["eva \u2212 new", "0.100", MISSING, "1"]
    assert "Mean ± standard error; seed 4.\n" in page


def test_rows_of_metrics_with_different_runs_say_so():
    rows = (row("new", measured(1234567.0), measured(-2345.0, runs=9, missing=1)),)
    page = markdown(findings(rows=rows, spent=(), cells=()), MADE)
    assert table(page, "arm")[1] == [
        "new",
        "1,234,567 ± 0.004",
        "\u22122,345 ± 0.004",
        "10, 9 of 10",
    ]
    assert f"seeds {MISSING}." in page


def test_each_place_has_its_table_and_places_along_an_axis_share_one():
    places = [{"reward": r, "size": s} for r in ("graded", "binary") for s in ("8", "16")]
    rows = tuple(row("eva", measured(0.1 * k), None, place) for k, place in enumerate(places, 1))
    factors = {"reward": ("graded", "binary"), "size": ("8", "16"), "theta_0": ("a", "b")}
    page = markdown(
        findings(rows=rows, factors=factors, axes=("size",), pooled=("theta_0",), spent=()), MADE
    )
    assert re.findall("^### .*", page, re.M) == ["### reward graded", "### reward binary"]
    assert table(page, "size") == [
        ["size", "arm", HARD, X0, "runs"],
        ["8", "eva", "0.100 ± 0.004", MISSING, "10 seeds x 2"],
        ["16", "eva", "0.200 ± 0.004", MISSING, "10 seeds x 2"],
    ]
    assert (
        "Runs of one seed are averaged over the levels of theta_0 (a, b) first; errors are those "
        "of seeds, and say nothing of other levels." in page
    )
    assert "![By size: hard/sampled/reward, x0/sampled/reward with reward graded; reward binary]" \
        "(main-by-size.svg)" in page  # fmt: skip


def test_figures_stand_below_their_numbers():
    lines = (Line(place={}, arm="eva", metric=HARD, points={0: measured(0.4), 1: measured(0.5)}),)
    page = markdown(findings(lines=lines), MADE)
    shown = re.findall(r"!\[(.*)\]\((.*)\)", page)
    assert shown == [
        (f"Differences with 95 % intervals: {HARD}, {X0}", "main-differences.svg"),
        (f"Over rounds: {HARD}", "main-curves.svg"),
    ]
    assert page.index("## At the end") < page.index("## Over rounds") < page.index("<details")
    assert "## Over rounds" not in markdown(findings(), MADE)


def test_the_grid_is_folded():
    settings = [{"learner.lr": 0.0005}, {"learner.kind": "sppo", "learner.share": True}]
    tuned = tuple(
        Tuned(place={"size": "8"}, arm="eva", setting=setting, value=value, is_chosen=k == 1)
        for k, (setting, value) in enumerate(
            zip(settings, [measured(0.4, runs=3), measured(0.5, runs=2, missing=1)], strict=True)
        )
    )
    cells = (cell("eva", 1, "tune"), cell("eva", 3, "tune"), cell("eva", 4))
    page = markdown(findings(tuned=tuned, tuned_by=HARD, cells=cells), MADE)
    assert (
        '<details markdown="1">\n<summary>Settings tried on seeds 1, 3; the greatest mean of '
        f"{HARD} is chosen</summary>\n\n| size |" in page
    )
    assert table(page, "size") == [
        ["size", "arm", "learner.lr", "learner.kind", "learner.share", HARD, "runs", ""],
        ["8", "eva", "0.0005", MISSING, MISSING, "0.400 ± 0.004", "3", ""],
        ["8", "eva", MISSING, "sppo", "true", "0.500 ± 0.004", "2 of 3", "chosen"],
    ]


def test_what_was_spent_is_folded():
    spent = (
        Spent(
            place={"size": "8"}, arm="new", counts={"own": 1.0, "tokens": 123456.7, "steps": 512.0}
        ),
        Spent(place={"size": "8"}, arm="eva", counts={"steps": 512.0, "evolver_calls": 3.5}),
    )
    page = markdown(findings(spent=spent), MADE)
    assert table(page, "size") == [
        ["size", "arm", "gradient steps", "tokens", "prompts evolved", "own"],
        ["8", "new", "512", "123,457", MISSING, "1"],
        ["8", "eva", "512", MISSING, "4", MISSING],
    ]


def test_failed_runs_are_named_with_their_reasons():
    cells = (cell("new", 4), cell("eva", 4, failed="PlugInError: [64, 5]\n  not [64, 6]"))
    page = markdown(findings(cells=cells), MADE)
    assert page.endswith(
        "## Failed\n\nThese runs have no result and are left out above; the command tries them "
        "again.\n\n- cells/eva/as-is/seed4: PlugInError: \\[64, 5\\] not \\[64, 6\\]\n"
    )
    assert "## Failed" not in markdown(findings(), MADE)


def test_texts_are_printed_as_they_stand():
    question = "Is A*_min <b>best</b>, `x` | y, _z_, $a$ ~b~, [c](d) & &lt; p < .05?\n# no"
    page = markdown(findings(question=question), MADE)
    assert page.splitlines()[2] == (
        r"Is A\*\_min &#60;b>best&#60;/b>, \`x\` &#124; y, \_z\_, &#36;a&#36; &#126;b&#126;, "
        r"\[c\](d) & &#38;lt; p < .05? \# no"
    )


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("- is it?", "&#45; is it?"),
        ("+ is it?", "&#43; is it?"),
        ("> is it?", "&#62; is it?"),
        ("1. is it?", "1&#46; is it?"),
        ("12) is it?", "12&#41; is it?"),
        ("1.5 or 2?", "1.5 or 2?"),
        ("---", "&#45;--"),
        ("=== is it", "&#61;== is it"),
    ],
)
def test_a_text_begins_no_list_and_no_quote(question, text):
    assert markdown(findings(question=question), MADE).splitlines()[2] == text


def test_only_what_leads_is_bold_in_a_table():
    tuned = (Tuned(place={}, arm="eva", setting={"x": "**y|z**"}, value=measured(0.1),
                   is_chosen=True),)  # fmt: skip
    page = markdown(findings(tuned=tuned, tuned_by=HARD), MADE)
    assert r"| eva | \*\*y&#124;z\*\* | 0.100 ± 0.004 |" in page
    assert "**0.520 ± 0.004**" in page


def test_small_means_are_told_with_the_digits_that_they_need():
    tiny = Measured(mean=0.0003, error=0.0001, low=0.0002, high=0.0004, runs=3)
    rows = (row("eva", tiny, None), row("eva", tiny, None, minus="new"))
    page = markdown(findings(rows=rows), MADE)
    assert "| 0.00030 ± 0.00010 |" in page
    assert "| 0.00030 (0.00020 to 0.00040) |" in page
