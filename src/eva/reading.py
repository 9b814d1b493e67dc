"""A run directory as frozen records: what is there is read, what is missing is empty.

The texts of the responses stay in their files (they are the bulk of a run); an `Answered` knows
where they lie, and `replies` fetches those that are shown.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from eva.errors import RunDirError
from eva.recipe import parsed
from eva.records import Child, Prompt, Record, ScoredPrompt
from eva.store import read_records

STAGES = (
    "pool",
    "tried",
    "scored",
    "parents",
    "written",
    "children",
    "born",
    "batch",
    "solved",
    "notes",
    "lessons",
    "checkpoint",
)
"""The stages of a round, in the order in which they are made; `notes` has an online round alone."""

K = TypeVar("K", bound=Record)
M = TypeVar("M", bound=BaseModel)


class Reply(BaseModel):
    """A response as the report shows it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    """The decoded answer."""
    finish: str = "stop"
    """"stop" or "length"."""


class Answered(Record):
    """A prompt with its rewards in one round; its responses stay in the file."""

    prompt: Prompt
    """The prompt x."""
    rewards: tuple[float | None, ...]
    """Its rewards; None where one is missing."""
    round: int
    """The round in whose folder the line lies."""
    policy: str
    """The id of the checkpoint that answered; in an online round, with the mini-batch."""
    file: Path
    """The file with the responses."""
    offset: int
    """Where the line begins, in bytes."""


class Round(Record):
    """What is there of one round."""

    number: int
    """The round t."""
    finished: bool
    """Whether its metrics were written, which closes it."""
    stage: str | None
    """The last stage of which something is there."""
    pool: tuple[Prompt, ...]
    """X_t."""
    tried: tuple[Answered, ...]
    """The pool as it was answered, for the estimate."""
    scored: tuple[ScoredPrompt, ...]
    """The pool with its informativeness."""
    parents: tuple[ScoredPrompt, ...]
    """Those that were drawn."""
    children: tuple[Child, ...]
    """What was written, the refused ones too."""
    born: tuple[Prompt, ...]
    """The admitted ones."""
    solved: tuple[Answered, ...]
    """The newborn (in plain rounds: the given) prompts as they were answered."""
    lessons: tuple[Answered, ...]
    """What the learner got."""
    steps: tuple[dict[str, float], ...]
    """The learner's log, a line for each optimiser step."""
    metrics: dict[str, float]
    """The numbers that close the round."""


class Run(Record):
    """One run directory."""

    path: Path
    """The folder."""
    label: str
    """How the page calls it."""
    recipe: dict[str, JsonValue]
    """The recipe, whole."""
    facts: dict[str, JsonValue]
    """Versions, commit, host."""
    rounds: tuple[Round, ...]
    """The rounds that were begun, in order."""
    evals: dict[int, dict[str, float]]
    """Metrics of theta_t by t."""

    @property
    def planned(self) -> int:
        """How many rounds the recipe asks for."""
        rounds = self.recipe.get("rounds")
        return rounds if isinstance(rounds, int) else len(self.rounds)

    @property
    def played(self) -> int:
        """How many rounds are finished."""
        return sum(played.finished for played in self.rounds)


class _Line(BaseModel):
    """The part of a rollout's line that is kept."""

    model_config = ConfigDict(extra="ignore")

    prompt: Prompt
    rewards: tuple[float | None, ...]
    policy: str = ""


class _Replies(BaseModel):
    """The part of a rollout's line that `replies` fetches."""

    model_config = ConfigDict(extra="ignore")

    responses: tuple[Reply, ...]


def read_runs(paths: Sequence[Path]) -> tuple[Run, ...]:
    """Several run directories, with labels that tell them apart.

    Raises:
        RunDirError: No path is given, one is no run directory, or a file in it is damaged.
    """
    if not paths:
        raise RunDirError("no run directory was given; name at least one folder that eva run wrote")
    runs = [read_run(path) for path in paths]
    names = [run.label for run in runs]
    folders = [run.path.resolve().name for run in runs]
    seeds = [str(run.recipe.get("seed", "?")) for run in runs]
    choices = [
        names,
        [f"{name} · seed {seed}" for name, seed in zip(names, seeds, strict=True)],
        [f"{name} · {folder}" for name, folder in zip(names, folders, strict=True)],
        [f"{number} · {name}" for number, name in enumerate(names, 1)],
    ]
    labels = next(choice for choice in choices if len(set(choice)) == len(choice))
    pairs = zip(runs, labels, strict=True)
    return tuple(run.model_copy(update={"label": label}) for run, label in pairs)


def read_run(path: Path) -> Run:
    """One run directory.

    Raises:
        RunDirError: It is no run directory, or a file in it is damaged.
    """
    if not (path / "recipe.yaml").is_file():
        raise RunDirError(f"{path} is no run directory: it has no recipe.yaml; name the folder "
                          "that eva run wrote")  # fmt: skip
    recipe = _recipe(path / "recipe.yaml")
    planned = recipe.get("rounds")
    found = (f for f in path.glob("rounds/*") if f.is_dir() and f.name.isdigit())
    folders = sorted(found, key=lambda folder: int(folder.name))
    rounds = [_round(folder) for folder in folders]
    if isinstance(planned, int):  # the folder after the last round only holds the final pool
        rounds = [found for found in rounds if found.number < planned]
    evals = sorted(f for f in path.glob("evals/*.json") if f.stem.isdigit())
    return Run(
        path=path,
        label=_label(recipe, path),
        recipe=recipe,
        facts=_object(path / "run.json"),
        rounds=tuple(rounds),
        evals={int(file.stem): _floats(_object(file)) for file in evals},
    )


def replies(answered: Answered) -> tuple[Reply, ...]:
    """The responses of one line, from its file."""
    with answered.file.open("rb") as file:
        file.seek(answered.offset)
        return _parsed(_Replies, file.readline(), answered.file, 1).responses


def _label(recipe: dict[str, JsonValue], path: Path) -> str:
    """The name of the recipe, else of the folder, as text that can be written anywhere."""
    label = str(recipe.get("name") or path.resolve().name)
    return label.encode(errors="replace").decode()


def _round(folder: Path) -> Round:
    there = [s for s in STAGES if (folder / f"{s}.jsonl").exists() or (folder / s).is_dir()]
    number = int(folder.name)
    return Round(
        number=number,
        finished=(folder / "metrics.json").exists(),
        stage=there[-1] if there else None,
        pool=_records(folder, "pool", Prompt),
        tried=_answered(folder, "tried", number),
        scored=_records(folder, "scored", ScoredPrompt),
        parents=_records(folder, "parents", ScoredPrompt),
        children=_records(folder, "children", Child),
        born=_records(folder, "born", Prompt),
        solved=_answered(folder, "solved", number),
        lessons=_answered(folder, "lessons", number),
        steps=tuple(_steps(folder / "learn" / "log.jsonl")),
        metrics=_floats(_object(folder / "metrics.json")),
    )


def _files(folder: Path, stage: str) -> list[Path]:
    """The file of a stage, or its chunks, in order."""
    whole = folder / f"{stage}.jsonl"
    return [whole] if whole.exists() else sorted((folder / stage).glob("*.jsonl"))


def _records(folder: Path, stage: str, kind: type[K]) -> tuple[K, ...]:
    return tuple(found for file in _files(folder, stage) for found in read_records(file, kind))


def _answered(folder: Path, stage: str, number: int) -> tuple[Answered, ...]:
    found = []
    for path in _files(folder, stage):
        offset = 0
        with path.open("rb") as file:
            for count, line in enumerate(file, 1):
                kept = _parsed(_Line, line, path, count)
                found.append(
                    Answered(
                        prompt=kept.prompt,
                        rewards=kept.rewards,
                        round=number,
                        policy=kept.policy,
                        file=path,
                        offset=offset,
                    )
                )
                offset += len(line)
    return tuple(found)


def _parsed(kind: type[M], line: bytes, path: Path, number: int) -> M:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RunDirError(
            f"{path}:{number} is no Rollout ({first['msg']}); it was damaged after it was written; "
            "restore it from a copy"
        ) from error


def _steps(path: Path) -> Iterator[dict[str, float]]:
    """The learner's log; a last line that a kill cut is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _floats(_loaded(line, path))


def _object(path: Path) -> dict[str, JsonValue]:
    return _loaded(path.read_bytes(), path) if path.exists() else {}


def _loaded(text: bytes, path: Path) -> dict[str, JsonValue]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RunDirError(f"{path} is no JSON ({error}); restore it or delete it") from error
    if not isinstance(found, dict):
        raise RunDirError(f"{path} is no JSON object; restore it or delete it")
    return found


def _recipe(path: Path) -> dict[str, JsonValue]:
    try:
        found = parsed(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunDirError(f"{path} is no YAML; restore it or use another folder") from error
    if not isinstance(found, dict):
        raise RunDirError(f"{path} is no recipe; restore it or use another folder")
    # Dates and other YAML types become texts, so that a recipe is JSON here.
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def _floats(values: dict[str, JsonValue]) -> dict[str, float]:
    """The numbers among JSON values; null (a missing number) and NaN are left out."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and value == value and abs(value) != float("inf")
    }
