"""What a run asked of models behind servers, and what that cost."""

from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from eva.cli.out import inert
from eva.serving.answers import Account, accounts
from eva.start import CACHE

COUNTS = {
    "requests": "answered",
    "hits": "found again",
    "failed": "failed",
    "prompt_tokens": "tokens read",
    "completion_tokens": "tokens written",
}
"""What an account counts, and what a person calls it."""


def spent(run: Path) -> list[JsonValue]:
    """The accounts of a run, for machines; empty where no server was asked."""
    return [{"model": name, **asdict(account)} for name, account in _by_name(run)]


def print_spent(run: Path, out: Console) -> None:
    """Print the accounts of a run; nothing where no server was asked."""
    rows = _by_name(run)
    if not rows:
        return
    is_paid = any(account.money for _, account in rows)
    table = Table(title="asked of servers, over all attempts")
    table.add_column("model", overflow="fold")
    for title in [*COUNTS.values(), *(["cost"] if is_paid else [])]:
        table.add_column(title, justify="right")
    for name, account in rows:
        counts = [f"{getattr(account, field):,.0f}" for field in COUNTS]
        table.add_row(inert(name), *counts, *([f"{account.money:,.4f}"] if is_paid else []))
    out.print(table, markup=False)


def _by_name(run: Path) -> list[tuple[str, Account]]:
    return sorted(accounts(run / CACHE).items())
