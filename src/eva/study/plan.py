"""The plan of a study: what it says, checked, and the cells that it asks for.

A cell is one run: an arm, a level of each factor, a setting of the tuned keys, a seed. Its folder
says what it is, so that a study that grows finds the cells that it has. `eva.study.cells` makes its
recipe.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from eva.config import Recipe
from eva.errors import RecipeError
from eva.findings import Place
from eva.parts import Part, PythonCall
from eva.recipe import Tree, nearest
from eva.study.results import Result

Setting: TypeAlias = dict[str, JsonValue]
"""Dotted keys of a recipe and their values."""
Tuning: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""What is tuned by itself: an arm, and the sorted levels of the factors in `tune.over`."""

AS_IS = "as-is"
"""The label of a setting that changes nothing."""
SETTING = TypeAdapter(Setting)
NAME = re.compile(r"\w(-?[\w.])*")
"""A name of a folder; "--" stands between names."""


def spelled(name: object) -> object:
    """A name that YAML took for a number or a truth value, as a text."""
    return json.dumps(name) if isinstance(name, bool | int | float) else name


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is the name of a folder; write letters, digits, _, . and single -"
        )
    return name


def settings(grid: object) -> tuple[Setting, ...]:
    """The settings of a grid: keys with their values, crossed, or a list of changes.

    Raises:
        ValueError: It is neither, or two settings would have the same folder.
    """
    if isinstance(grid, Mapping) and all(isinstance(v, list | tuple) for v in grid.values()):
        tried = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    elif isinstance(grid, list | tuple) and all(isinstance(one, Mapping) for one in grid):
        tried = [dict(one) for one in grid]
    else:
        raise ValueError("expected keys with lists of values, or a list of changes with keys")
    found = [_setting(one) for one in tried]
    labels = [label(setting) for setting in found]
    twice = next((name for name in labels if labels.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two settings have the label {twice!r}; each is tried once")
    if not found:
        raise ValueError("expected at least one setting, and it has none")
    return tuple(found)


def _setting(fields: object) -> Setting:
    """A setting whose keys are texts and whose values JSON can tell."""
    try:
        setting = SETTING.validate_python(fields)
        json.dumps(setting, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            "expected dotted keys that are texts, with finite numbers, texts, truth values, and "
            f"lists and keys of them; came {fields!r:.80}"
        ) from error
    return setting


def label(setting: Setting) -> str:
    """A setting as the name of its folder.

    Examples:
        >>> label({"learner.lr": 0.0005, "learner.beta": 1.0}), label({})
        ('lr=0.0005,beta=1.0', 'as-is')
    """
    lasts = [key.rpartition(".")[2] for key in setting]
    parts = [
        f"{last if lasts.count(last) == 1 else key}={_said(value)}"
        for last, (key, value) in zip(lasts, setting.items(), strict=True)
    ]
    return ",".join(parts) or AS_IS


def _said(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


Name: TypeAlias = Annotated[str, BeforeValidator(spelled), AfterValidator(_named)]
"""Of an arm, a factor or a level: it names folders."""
Change: TypeAlias = Annotated[
    Tree, BeforeValidator(lambda change: {} if change is None else change)
]
"""What is laid over a recipe; nothing written is no change."""
Grid: TypeAlias = Annotated[tuple[Setting, ...], BeforeValidator(settings)]
"""The settings that are tried."""
Seeds: TypeAlias = Annotated[tuple[int, ...], Field(min_length=1)]
"""Of runs; each once."""


class Tune(Part):
    """The settings that every arm tries, and how one of them is chosen."""

    seeds: Seeds
    """Seeds that are never tabled."""
    grid: Grid
    """Keys with lists of values, which are crossed, or a list of changes; keys are dotted."""
    by: str
    """The held-out metric at the end of a run whose greatest mean wins; among equals, the first of
    the grid (in a list of values, the last key turns fastest)."""
    within: float = Field(default=0.0, ge=0.0)
    """Standard errors of the greatest mean within which a setting counts as its equal. With 0 the
    greatest mean wins; 1 is the one-standard-error rule (Leo Breiman et al., "Classification and
    Regression Trees", 1984), for grids that are written from gentle to bold: of few noisy seeds the
    greatest mean is often the boldest."""
    over: tuple[Name, ...] = ()
    """Factors in each level of which an arm is tuned anew; the others stand at their first one."""


class Claim(Part):
    """What is said before the runs: an arm ends above another one."""

    better: Name
    """The arm ..."""
    than: Name
    """... that ends above this one ..."""
    on: str
    """... on this metric ..."""
    by: float = 0.0
    """... by more than this; below 0: not worse by so much or more."""
    where: dict[Name, Name] = Field(default_factory=dict)
    """Levels of factors that are not pooled; a factor that is left out: the claim is made in each
    of its levels."""


class Study(Part):
    """A study, whole: what is played, and what is asked of it."""

    name: Name
    """Its short name, of its folder and its pages."""
    question: str
    """What it asks, in a sentence."""
    base: str
    """The recipe that every cell starts from: a file, or the name of a shipped one."""
    change: Change = Field(default_factory=dict)
    """Laid over it in all cells."""
    prepare: dict[Name, str] = Field(default_factory=dict)
    """Folders that changes may name as "{theta_b}", each with the command that makes it; in it
    {out} is the folder."""
    factors: dict[Name, Annotated[dict[Name, Change], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    """Levels by factor, crossed with each other and with the arms; the first is the reference."""
    pool: tuple[Name, ...] = ()
    """Factors over whose levels each seed is averaged, in tables and claims."""
    axes: tuple[Name, ...] = ()
    """Factors whose levels are amounts, drawn as horizontal axes."""
    arms: dict[Name, Change] = Field(min_length=1)
    """What is compared: each a change; `base` in it replaces that of the study."""
    tune: Tune | None = None
    """The grid; null plays every arm as it is."""
    seeds: Seeds
    """The seeds of the table; they were not tuned on."""
    against: Name | None = None
    """The arm whose differences to each other arm are tabled; null for none."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """What is tabled at the end of a run."""
    curves: tuple[str, ...] = ()
    """What is drawn over rounds: held-out metrics, and "round/..." for metrics of the rounds."""
    claims: tuple[Claim, ...] = ()
    """What is said beforehand, and judged."""
    probe: PythonCall | None = None
    """A function from a run directory to {t: {name: value}}, which join the metrics of round t;
    called at the end of a run."""
    keep: Literal["all", "first", "none"] = "first"
    """The run directories that are kept whole: those of the first seed of each arm and place, all,
    or none. Of the others recipe, metrics and logs stay."""

    @model_validator(mode="after")
    def _seeds_are_fresh(self) -> Self:
        tuned = self.tune.seeds if self.tune else ()
        for where, drawn in (("seeds", self.seeds), ("tune.seeds", tuned)):
            if len(set(drawn)) < len(drawn):
                raise ValueError(f"{where} names a seed twice: {', '.join(map(str, drawn))}")
        if met := sorted({*self.seeds} & {*tuned}):
            raise ValueError(
                f"seeds and tune.seeds share {', '.join(map(str, met))}; a table stands on seeds "
                "that no setting was chosen by"
            )
        return self

    @model_validator(mode="after")
    def _arms_are_known(self) -> Self:
        if taken := sorted({"theta_0", "theta_1"} & {*self.arms}):
            raise ValueError(f"the arm {taken[0]} needs another name: tables call a checkpoint so")
        named = [("against", self.against)] if self.against else []
        for number, claim in enumerate(self.claims):
            place = f"claims.{number}"
            named += [(f"{place}.better", claim.better), (f"{place}.than", claim.than)]
            if claim.better == claim.than:
                raise ValueError(f"{place} sets {claim.than!r} against itself; name another arm")
        _check_known("arm", named, self.arms)
        return self

    @model_validator(mode="after")
    def _factors_are_known(self) -> Self:
        over = self.tune.over if self.tune else ()
        named = [("pool", n) for n in self.pool] + [("axes", n) for n in self.axes]
        named += [("tune.over", name) for name in over]
        for number, claim in enumerate(self.claims):
            place = f"claims.{number}.where"
            _check_known("factor", [(place, name) for name in claim.where], self.factors)
            for name, level in claim.where.items():
                _check_known("level", [(f"{place}.{name}", level)], self.factors[name])
                if name in self.pool:
                    raise ValueError(f"{place} names {name!r}, over which claims are pooled")
        _check_known("factor", named, self.factors)
        if both := [name for name in self.axes if name in self.pool]:
            raise ValueError(f"axes and pool both name {both[0]!r}; what is pooled has no axis")
        for factor in self.axes:
            for level in self.factors[factor]:
                if not re.fullmatch(r"\d+(\.\d+)?", level):
                    raise ValueError(f"axes names {factor!r}, whose level {level!r} is no amount")
        return self

    @model_validator(mode="after")
    def _grids_are_tuned(self) -> Self:
        for factor, levels in self.factors.items():
            for level, change in levels.items():
                if "grid" not in change:
                    continue
                place = f"factors.{factor}.{level}.grid"
                if self.tune is None or factor not in self.tune.over:
                    raise ValueError(f"{place} needs {factor!r} among the factors in tune.over")
                try:
                    settings(change["grid"])
                except ValueError as error:
                    raise ValueError(f"{place}: {error}") from error
        return self


@dataclass(frozen=True)
class Played:
    """A cell of the plan, and what became of it."""

    arm: str
    """The arm."""
    place: Place
    """The level of every factor."""
    setting: Setting
    """The tuned keys; empty without a grid."""
    seed: int
    """The seed of the run."""
    use: Literal["tune", "table"]
    """What it is for."""
    path: Path
    """Its run directory."""
    recipe: Recipe
    """What is played there."""
    result: Result | None = None
    """What it measured; None while it has not ended well."""
    failed: str | None = None
    """Why it has no result, after it was tried."""

    @property
    def within(self) -> str:
        """Its run directory, relative to the study's: cells/<arm and levels>/<setting>/seed<k>."""
        return "/".join(self.path.parts[-4:])


def places(study: Study, over: Iterable[str]) -> list[Place]:
    """The combinations of the levels of the factors in `over`; the others at their first level."""
    free = {*over}
    levels = [
        list(levels) if factor in free else list(levels)[:1]
        for factor, levels in study.factors.items()
    ]
    return [dict(zip(study.factors, found, strict=True)) for found in product(*levels)]


def tuned_at(study: Study, arm: str, place: Place) -> Tuning:
    """What a cell takes its setting from."""
    over = study.tune.over if study.tune else ()
    return arm, tuple(sorted((name, level) for name, level in place.items() if name in over))


def grid(study: Study, place: Place) -> tuple[Setting, ...]:
    """The settings that are tried at a place; one that changes nothing if nothing is tuned."""
    if study.tune is None:
        return ({},)
    own = [study.factors[factor][level].get("grid") for factor, level in place.items()]
    replaced = [settings(found) for found in own if found is not None]
    return replaced[-1] if replaced else study.tune.grid


def checked_study(fields: Mapping[str, object], source: str) -> Study:
    """The study of a tree of keys; `source` names it in errors."""
    try:
        return Study.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_sentence(error)}") from error


def _check_known(what: str, named: Iterable[tuple[str, str]], known: Collection[str]) -> None:
    for place, name in named:
        if name not in known:
            listed = nearest(name, known) if known else "there is none"
            raise ValueError(f"{place} names the {what} {name!r}; {listed}")


def _sentence(error: ValidationError) -> str:
    """A fault of a study as one sentence: an unknown key, for it explains what is missing."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda one: one["type"] != "extra_forbidden")
    loc = [str(part) for part in fault["loc"] if part != "[key]"]
    place = ".".join(loc)
    if fault["type"] == "extra_forbidden":
        kinds: dict[str, type[BaseModel]] = {"tune": Tune, "claims": Claim, "probe": PythonCall}
        model = kinds[loc[0]] if len(loc) > 1 else Study
        return f"unknown key {place!r}; {nearest(loc[-1], model.model_fields)}"
    if fault["type"] == "missing":
        return f"the key {place!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message[0].lower()}{message[1:]}"
