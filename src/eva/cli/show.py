"""`eva show`: look inside a run, or follow one prompt through it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from eva.cli.out import inert
from eva.cli.play import AsJson, line_of
from eva.cli.spent import print_spent, spent
from eva.cli.yields import show_yields
from eva.errors import RunDirError
from eva.reading import Answered, Run, read_run, replies
from eva.records import Child, Prompt

SAMPLE = 8
"""Prompts listed of the last batch."""


@dataclass(frozen=True)
class History:
    """Everything a run knows of its prompts."""

    known: dict[str, Prompt | Child]
    """Prompts and refused children by id; what came first is the origin."""
    answers: dict[str, list[Answered]]
    """Each prompt's answered groups, in the order of rounds."""
    children: dict[str, list[Child]]
    """What was written from each prompt."""


def show(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    prompt: Annotated[
        str | None, typer.Argument(help="The id of a prompt, or how it begins.")
    ] = None,
    as_json: AsJson = False,
    yields: Annotated[
        bool, typer.Option("--yields", help="What became of the children, by operator.")
    ] = False,
) -> None:
    """Print a run's rounds and costs; or a prompt's ancestors, children, answers and flaws."""
    found = read_run(run)
    if yields:
        show_yields(found, Console(highlight=False), as_json=as_json)
        return
    history = _history(found)
    out = Console(highlight=False)
    if prompt is None:
        if as_json:
            out.print_json(json.dumps(_rounds(found)))
        else:
            _print_run(found, history, out)
        return
    id = _matching(prompt, history, run)
    if as_json:
        out.print_json(json.dumps(_followed(id, history)))
    else:
        _print_prompt(id, history, out)


def _history(run: Run) -> History:
    history = History({}, {}, {})
    for played in run.rounds:
        entries: tuple[Prompt | Child, ...] = (*played.pool, *played.children, *played.born)
        for entry in entries:
            history.known.setdefault(entry.id, entry)
        for child in played.children:
            history.children.setdefault(child.parent, []).append(child)
        for group in (*played.tried, *played.solved):
            history.answers.setdefault(group.prompt.id, []).append(group)
    return history


def _matching(start: str, history: History, run: Path) -> str:
    """The one id that begins so.

    Raises:
        RunDirError: None does, or several do.
    """
    ids = sorted(id for id in history.known if id.startswith(start))
    if len(ids) != 1:
        which = f"{len(ids)} do: {', '.join(ids[:5])}" if ids else "none does"
        raise RunDirError(
            f"expected one prompt of {run} whose id begins with {start!r}; {which} "
            f"(eva show {run} lists some)"
        )
    return ids[0]


def _ancestors(id: str, history: History) -> list[Prompt | Child]:
    """From the prompt's parent back to the given prompt it descends from."""
    line: list[Prompt | Child] = []
    seen = {id}
    parent = history.known[id].parent
    while parent is not None and parent in history.known and parent not in seen:
        line.append(history.known[parent])
        seen.add(parent)
        parent = history.known[parent].parent
    return line


# ---------------------------------------------------------------- for machines


def _rounds(run: Run) -> JsonValue:
    rounds: list[JsonValue] = [
        {"round": r.number, "finished": r.finished, "stage": r.stage, **r.metrics}
        for r in run.rounds
    ]
    evals: dict[str, JsonValue] = {str(t): dict(values) for t, values in run.evals.items()}
    return {
        "name": run.label,
        "planned": run.planned,
        "rounds": rounds,
        "evals": evals,
        "spent": spent(run.path),
    }


def _followed(id: str, history: History) -> JsonValue:
    answers: list[JsonValue] = [
        {
            "round": group.round,
            "policy": group.policy,
            "rewards": list(group.rewards),
            "responses": [reply.model_dump() for reply in replies(group)],
        }
        for group in history.answers.get(id, [])
    ]
    return {
        "prompt": history.known[id].model_dump(mode="json"),
        "ancestors": [a.model_dump(mode="json") for a in _ancestors(id, history)],
        "answers": answers,
        "children": [c.model_dump(mode="json") for c in history.children.get(id, [])],
    }


# ---------------------------------------------------------------- for people


def _print_run(run: Run, history: History, out: Console) -> None:
    out.print(f"{run.label}: {run.played} of {run.planned} rounds played", markup=False)
    for played in run.rounds:
        held_out = run.evals.get(played.number, {})
        line = line_of(played.number, run.planned, {**played.metrics, **held_out})
        unfinished = "" if played.finished else f" | stopped after the stage {played.stage}"
        out.print(line + unfinished, markup=False, soft_wrap=True)
    if run.planned in run.evals:
        out.print(line_of(run.planned, run.planned, run.evals[run.planned]), soft_wrap=True)
    print_spent(run.path, out)
    if run.rounds:
        lessons = run.rounds[-1].lessons or run.rounds[-1].solved
        table = Table(title="of the last round")
        table.add_column("id", no_wrap=True)
        for name in ("born", "change", "prompt", "rewards"):
            table.add_column(name)
        for group in lessons[:SAMPLE]:
            prompt = group.prompt
            table.add_row(
                prompt.id, str(prompt.born), inert(prompt.change), _chat(prompt), _rewards(group)
            )
        out.print(table)
        out.print(f"follow one: eva show {run.path} ID", markup=False, soft_wrap=True)


def _print_prompt(id: str, history: History, out: Console) -> None:
    lineage = [*reversed(_ancestors(id, history)), history.known[id]]
    tree = Tree(Text("lineage, oldest first"))
    branch = tree
    for entry in lineage:
        branch = branch.add(_described(entry, history))
    for child in history.children.get(id, []):
        branch.add(_described(child, history))
    out.print(tree)
    for group in history.answers.get(id, []):
        out.print(f"answered in round {group.round} by {group.policy}", markup=False)
        table = Table("reward", "finish", "response")
        pairs = zip(group.rewards, replies(group), strict=True)
        for reward, reply in sorted(pairs, key=lambda p: -(p[0] if p[0] is not None else -1e9)):
            table.add_row(_number(reward), reply.finish, inert(reply.text))
        out.print(table)


def _described(entry: Prompt | Child, history: History) -> Text:
    text = Text(entry.id, style="bold").append("  ").append(_chat(entry))
    if entry.change or entry.method != "given":
        text.append(f"\n{entry.method}: {entry.change}, by {entry.by}", style="dim")
    groups = history.answers.get(entry.id, [])
    if groups:
        text.append(f"\nrewards {_rewards(groups[-1])} in round {groups[-1].round}", style="dim")
    if isinstance(entry, Child) and entry.flaw:
        text.append(f"\nrefused: {entry.flaw}", style="red")
    return text


def _chat(entry: Prompt | Child) -> Text:
    messages = entry.messages
    if len(messages) == 1:
        return inert(messages[0].content)
    return inert("\n".join(f"{m.role}: {m.content}" for m in messages))


def _rewards(group: Answered) -> str:
    return _mean_and_spread([r for r in group.rewards if r is not None])


def _mean_and_spread(rewards: Sequence[float]) -> str:
    if not rewards:
        return "missing"
    return f"mean {sum(rewards) / len(rewards):.2f} spread {max(rewards) - min(rewards):.2f}"


def _number(reward: float | None) -> str:
    return "missing" if reward is None else f"{reward:.3f}"
