"""Answers that were paid for, and what they cost: one sqlite file, safe for several processes.

An answer is written within `DELAY` seconds of its arrival, so a killed run pays at most for those
few again. (A crash of the whole machine may take the last seconds too; the file stays sound.)
"""

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from eva.errors import BackEndError

FILE = "answers.sqlite"
"""The file in the folder of paid answers."""
DELAY = 0.04
"""Longest time between an answer and its commit, in seconds; a commit takes about a millisecond."""
BATCH = 256
"""Answers that are committed at once, at the latest."""
LARGE = 4096
"""From so many bytes on an answer is compressed: token ids shrink to a third."""
PATIENCE = 60.0
"""Seconds that a commit waits for one of another process."""
WAL_PAGES = 16384
"""Pages after which what was written moves from the log to the file: 64 MB, so that it is rare."""
TABLES = """
create table if not exists answer (key blob primary key, body blob not null);
create table if not exists account (
  name text primary key, requests real not null, hits real not null, failed real not null,
  prompt_tokens real not null, completion_tokens real not null, money real not null
) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Account:
    """What was asked of one model, over all attempts of a run."""

    requests: float = 0.0
    """Requests that were answered and paid."""
    hits: float = 0.0
    """Requests whose answer was there already."""
    failed: float = 0.0
    """Attempts that brought no answer: refused, cut, too late."""
    prompt_tokens: float = 0.0
    """Tokens that were read, as the servers count them."""
    completion_tokens: float = 0.0
    """Tokens that were written."""
    money: float = 0.0
    """In the currency of the recipe's price, at the price of the day."""

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.requests + other.requests,
            self.hits + other.hits,
            self.failed + other.failed,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.money + other.money,
        )


COLUMNS = tuple(field.name for field in fields(Account))


def key_of(weights: str, route: str, body: bytes) -> bytes:
    """What an answer is kept by: the weights, the route and the request, not where it is sent."""
    named = repr((weights, route)).encode()
    return hashlib.blake2b(named + body, digest_size=16).digest()


def accounts(folder: Path) -> dict[str, Account]:
    """The accounts in a folder of paid answers, by name; empty where there is none.

    Raises:
        BackEndError: The file is damaged.
    """
    if not (folder / FILE).exists():
        return {}
    with _explained(folder):
        db = sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            found = db.execute(f"select name, {', '.join(COLUMNS)} from account").fetchall()
        finally:
            db.close()
    return {str(name): Account(*numbers) for name, *numbers in found}


class Answers:
    """The open file. All its methods are called from one thread.

    Attributes:
        is_dirty: Whether something waits to be written.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder, self._name = folder, name
        self._new: dict[bytes, bytes] = {}
        self._delta = Account()
        self.is_dirty = False
        with _explained(folder):
            self._db = _opened(folder)
            self._written = self._read_account()

    @property
    def account(self) -> Account:
        """What was asked so far, by other processes too as far as it is written."""
        return self._written + self._delta

    @property
    def money(self) -> float:
        """What was spent so far."""
        return self._written.money + self._delta.money

    def get(self, key: bytes) -> bytes | None:
        """The answer, or None; one that is found is counted."""
        body = self._new.get(key)
        if body is None and self._folder is not None:
            try:
                row = self._db.execute("select body from answer where key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                raise _unusable(self._folder, error) from error
            body = row and _read(row[0])
        if body is not None:
            self.count(Account(hits=1))
        return body

    def put(self, key: bytes, body: bytes, cost: Account) -> None:
        """Keep an answer and what it cost; where nothing is kept, the cost alone."""
        if self._folder is not None:
            self._new[key] = body
        self.count(cost)
        if len(self._new) >= BATCH:
            self.flush()

    def count(self, change: Account) -> None:
        """Add to the account."""
        self._delta += change
        self.is_dirty = True

    def flush(self) -> None:
        """Commit what waits: answers and account in one transaction, whole or not at all."""
        if not self.is_dirty:
            return
        sums = ", ".join(f"{column} = {column} + excluded.{column}" for column in COLUMNS)
        with _explained(self._folder), self._db:
            self._db.execute("begin immediate")
            # Where another process had the same answer first, that one stays.
            self._db.executemany(
                "insert or ignore into answer values (?, ?)",
                [(key, _compressed(body)) for key, body in self._new.items()],
            )
            self._db.execute(
                "insert into account values (?, ?, ?, ?, ?, ?, ?) "
                f"on conflict do update set {sums}",
                (self._name, *astuple(self._delta)),
            )
            self._written = self._read_account()
        self._new.clear()
        self._delta = Account()
        self.is_dirty = False

    def close(self) -> None:
        """Write what waits, and close the file."""
        try:
            self.flush()
        finally:
            self._db.close()

    def _read_account(self) -> Account:
        columns = ", ".join(COLUMNS)
        found = self._db.execute(f"select {columns} from account where name = ?", (self._name,))
        return Account(*(found.fetchone() or ()))


def _opened(folder: Path | None) -> sqlite3.Connection:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    place = ":memory:" if folder is None else str(folder / FILE)
    db = sqlite3.connect(place, isolation_level=None, timeout=PATIENCE)
    _keep_a_log(db)
    db.execute("pragma synchronous = normal")
    db.execute(f"pragma wal_autocheckpoint = {WAL_PAGES}")
    db.executescript(TABLES)
    return db


def _keep_a_log(db: sqlite3.Connection) -> None:
    """Have commits go to a log; sqlite does not wait where another process does so just now."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _compressed(body: bytes) -> bytes:
    return zlib.compress(body, 1) if len(body) >= LARGE else body


def _read(body: bytes) -> bytes:
    """As it came; a compressed one begins with a byte that no JSON object begins with."""
    return zlib.decompress(body) if body[:1] == b"\x78" else body


@contextmanager
def _explained(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path | None, error: Exception) -> BackEndError:
    return BackEndError(
        f"the paid answers in {folder} cannot be kept or read ({error}); make room or mend the "
        "access rights, or remove the folder to pay for them again"
    )
