"""The study directory: it belongs to one study, which may grow, and has one writer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue, ValidationError

from eva.errors import RunDirError
from eva.findings import Made
from eva.recipe import dumped, flat
from eva.store import locked, write_whole
from eva.study.plan import Study
from eva.study.written import load

READ_OFF = frozenset({"question", "pool", "axes", "against", "metrics", "curves", "claims", "keep"})
"""Keys that say what is read off the runs: they may change."""
GROW = frozenset({"arms", "prepare"})
"""Keys in which names may be added; levels of a factor may be, too."""


@contextmanager
def held(home: Path, study: Study) -> Iterator[None]:
    """Hold a study directory as its one writer, for one study.

    Raises:
        RunDirError: Another process holds it, it belongs to another study, or it holds something
            else.
    """
    file = home / "study.yaml"
    if home.is_dir() and not file.exists():
        foreign = sorted({entry.name for entry in home.iterdir()} - {"lock", "study.yaml.part"})
        if foreign:
            raise RunDirError(
                f"{home} is no study directory and holds other files ({', '.join(foreign[:3])}); "
                "name an empty or a new folder for the study"
            )
    with locked(home / "lock", home, "study"):
        if file.exists():
            must_be_same(load(file), study, home)
        write_whole(file, [dumped(study.model_dump(mode="json")).encode()])
        yield


def must_be_same(standing: Study, coming: Study, home: Path) -> None:
    """Refuse to go on in the directory of another study.

    Arms, levels and seeds may be added, and what is read off the runs may change: the cells stay
    what they are.

    Raises:
        RunDirError: Lists the keys that differ.
    """
    was, now = standing.model_dump(mode="json"), coming.model_dump(mode="json")
    old = {key: value for key, value in was.items() if key not in READ_OFF}
    new = old | {key: _shrunk(key, value, was[key]) for key, value in now.items() if key in old}
    a = {key: repr(value) for key, value in flat(old)}
    b = {key: repr(value) for key, value in flat(new)}
    rows = [
        f"{key} is {a.get(key, 'absent')} there and {b.get(key, 'absent')} here"
        for key in dict.fromkeys((*a, *b))
        if a.get(key) != b.get(key) and key not in ("tune.by", "tune.within")
    ]
    for factor, levels in standing.factors.items():
        first, before = next(iter(coming.factors.get(factor, levels))), next(iter(levels))
        if first != before:
            rows.append(f"the first level of {factor} is {before!r} there and {first!r} here")
    if rows:
        raise RunDirError(
            f"{home} was made by another study: {'; '.join(rows)}. Give this study another folder, "
            "or the old values"
        )


def _shrunk(key: str, now: JsonValue, was: JsonValue) -> JsonValue:
    """A value without what may have been added to the old one."""
    if key == "seeds" and isinstance(now, list) and isinstance(was, list):
        return was if all(seed in now for seed in was) else now
    if key in GROW and isinstance(now, dict) and isinstance(was, dict):
        return {name: value for name, value in now.items() if name in was}
    if key == "factors" and isinstance(now, dict) and isinstance(was, dict):
        return {name: _shrunk("arms", levels, was.get(name)) for name, levels in now.items()}
    return now


def read_made(home: Path) -> Made | None:
    """Where and how the study was made so far; None before its first cell has ended.

    Raises:
        RunDirError: The file is damaged.
    """
    file = home / "made.json"
    if not file.exists():
        return None
    try:
        return Made.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise RunDirError(
            f"{file} is damaged; delete it, and run the same command again"
        ) from error
