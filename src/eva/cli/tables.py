"""The tables of `eva check`."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from eva.config import Recipe
from eva.costs.cards import GIB
from eva.costs.hours import COMPUTE, DECODE, named
from eva.costs.plan import Plan

GIGA = 1e9


def show(recipe: Recipe, found: Mapping[str, int | None], plan: Plan | None) -> None:
    """Print what a run does and needs, and a closing sentence."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{recipe.name}: the recipe is sound")
    table = _table("", "what", "at most")
    for name, count in found.items():
        table.add_row(name, "not known before the run" if count is None else f"{count:,}")
    console.print(table)
    if plan is None:
        console.print("say how many prompts the data set holds (--prompts) to plan the run")
        return
    for title, part in (
        ("who is asked", _asks(plan)),
        ("what is learnt", _learning(plan)),
        (f"what is held at the same time, GiB{_on(plan)}", _memory(plan)),
        (f"hours at {DECODE:.0%} of bandwidth, {COMPUTE:.0%} of peak", _hours(plan)),
        ("disk and downloads, GB", _disk(plan)),
    ):
        if part.row_count:
            part.title, part.title_justify = title, "left"
            console.print(part)
    for line in _lines(plan):
        console.print(line)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _asks(plan: Plan) -> Table:
    table = _table("", "stage", "model", "calls", "tokens read", "written", "at most")
    for ask in plan.work.asks:
        numbers = (ask.calls, ask.read, ask.written, ask.written_most)
        table.add_row(ask.stage, named(ask.who), *(f"{round(one):,}" for one in numbers))
    return table


def _learning(plan: Plan) -> Table:
    """A learner writes nothing: its tokens go forward and backward, or forward alone."""
    table = _table("", "the learner", "in all")
    learning = plan.work.learning
    if learning and learning.steps:
        table.add_row("optimiser steps", f"{learning.steps:,}")
        table.add_row("pairs, or online groups", f"{learning.groups:,}")
        table.add_row("tokens forward and backward", f"{round(learning.trained):,}")
        table.add_row("the same at most", f"{round(learning.trained_most):,}")
        table.add_row("tokens forward alone, e.g. the reference's", f"{round(learning.scored):,}")
    return table


def _on(plan: Plan) -> str:
    """The GPUs of a plan, as a title says them."""
    card, gpus = plan.machine.card, plan.machine.gpus
    if card is None:
        return ""
    return f", on {f'{gpus} x ' if gpus > 1 else ''}{card.name}"


def _memory(plan: Plan) -> Table:
    table = _table("", "phase, device", "what", "GiB", "of")
    for load in plan.loads:
        room = "-" if load.room is None else f"{load.room / GIB:.1f}"
        verdict = {True: "fits", False: "does not fit", None: ""}[load.fits]
        for name, size in load.parts.items():
            table.add_row("", name, f"{size / GIB:.1f}", "")
        for name in load.unknown:
            table.add_row("", name, "not known: its config.json is not here", "")
        total = f"{load.total / GIB:.1f}"
        table.add_row(f"{load.phase or 'all'}, {load.device}", verdict, total, room)
        table.add_section()
    return table


def _hours(plan: Plan) -> Table:
    table = _table("", "stage", "tokens", "tokens/s", "GPUs", "hours")
    if all(stage.hours is None for stage in plan.stages):
        return table
    for stage in plan.stages:
        hours = "not known" if stage.hours is None else f"{stage.hours:.2f}"
        speed = "-" if stage.speed is None else f"{stage.speed:,.0f}"
        gpus = str(stage.gpus) if stage.gpus else "elsewhere"
        table.add_row(stage.name, f"{round(stage.tokens):,}", speed, gpus, hours)
    return table


def _disk(plan: Plan) -> Table:
    table = _table("", "what", "GB")
    for name, size in plan.disk.items():
        table.add_row(name, "not known" if size is None else f"{size / GIGA:,.1f}")
    return table


def _lines(plan: Plan) -> list[str]:
    """What is said below the tables; the last line is the verdict."""
    lines = [f"not counted: {one}" for one in plan.work.unknown]
    if plan.host:
        lines.append(f"the learner reads {plan.host / GIB:.1f} GiB into main memory, all processes")
    if plan.hours is not None:
        cost = "" if plan.gpu_money is None else f", {plan.gpu_money:,.2f} at the price given"
        lines.append(f"{plan.hours:,.2f} hours, {plan.gpu_hours:,.2f} GPU-hours{cost}")
        waits = [stage.name for stage in plan.stages if stage.hours is None]
        lines += [f"and the hours, not known here, of {', '.join(waits)}"] if waits else []
    for bill in plan.bills:
        lines.append(f"{bill.model} charges about {bill.expected:,.2f}, {bill.most:,.2f} at most")
        lines += [bill.verdict] if bill.verdict else []
    return [*lines, plan.sentence]
