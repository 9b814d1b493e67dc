"""The cells of a study, with their recipes: a base, and changes laid over it one after the other.

Changes are merged as recipes are (`eva.recipe`), their paths are relative to the study file, and
"{theta_b}" in them is a folder that the study prepared.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from eva.errors import RecipeError
from eva.findings import Place
from eva.recipe import FILES, OPAQUE, Tree, anchored, checked, found, merged, nearest, tree
from eva.study.plan import Played, Setting, Study, Tuning, grid, label, places, tuned_at

LONGEST = 200
"""Characters that the name of a cell's folder may have; file systems end at 255."""
NAMED = re.compile(r"\{([\w.-]+)\}")
"""A name in braces: of a prepared folder, or of somebody else's."""
FOLDERS = FILES - {"rubric", "template", "templates"}
"""Keys that name a file or a folder, and no text that may have names in braces of its own."""


@dataclass(frozen=True)
class Site:
    """Where a study is played."""

    home: Path
    """The study directory."""
    here: Path
    """The folder of the study file: paths in changes are relative to it."""
    folders: Mapping[str, Path]
    """The prepared folders by name."""


def tuning_cells(study: Study, site: Site) -> list[Played]:
    """The cells that settings are chosen by; none if nothing is tuned.

    Raises:
        RecipeError: A recipe is wrong, or two cells have the same folder.
    """
    if study.tune is None:
        return []
    runs = [
        _runs(study, site, arm, place, setting, "tune")
        for place in places(study, study.tune.over)
        for setting in grid(study, place)
        for arm in study.arms
    ]
    return _by_seed(runs)


def table_cells(study: Study, site: Site, chosen: Mapping[Tuning, Setting]) -> list[Played]:
    """The cells of the table; an arm that has no setting, for its tuning failed, has none.

    Args:
        study: The study.
        site: Where it is played.
        chosen: The setting of each arm and place that is tuned.

    Raises:
        RecipeError: A recipe is wrong, or two cells have the same folder.
    """
    runs = [
        _runs(study, site, arm, place, chosen[at], "table")
        for place in places(study, study.factors)
        for arm in study.arms
        if (at := tuned_at(study, arm, place)) in chosen
    ]
    return _by_seed(runs)


def _runs(
    study: Study,
    site: Site,
    arm: str,
    place: Place,
    setting: Setting,
    use: Literal["tune", "table"],
) -> list[Played]:
    """An arm at a place with a setting, on every seed of its use."""
    tune, name = study.tune, "--".join((arm, *place.values()))
    seeds = tune.seeds if use == "tune" and tune else study.seeds
    levels = [study.factors[factor][level] for factor, level in place.items()]
    levels = [{k: v for k, v in change.items() if k != "grid"} for change in levels]
    changes = [study.change, *levels, study.arms[arm], *nested(setting)]
    folder = site.home.absolute() / "cells" / name / label(setting)
    if max(map(len, folder.parts)) > LONGEST:
        raise RecipeError(f"{folder} has a name of more than {LONGEST} characters; shorten it")
    fields = changed(study.base, changes, site.here, site.folders)
    source = f"{study.name}: {name}, {label(setting)}"
    recipe = checked(fields | {"name": name, "seed": seeds[0]}, source)
    return [
        Played(
            arm=arm,
            place=place,
            setting=setting,
            seed=seed,
            use=use,
            path=folder / f"seed{seed}",
            recipe=recipe.model_copy(update={"seed": seed}),
        )
        for seed in seeds
    ]


def _by_seed(runs: Sequence[Sequence[Played]]) -> list[Played]:
    """Seed by seed, arms last: a study that is stopped halfway has pairs."""
    cells = [cell for seed in zip(*runs, strict=True) for cell in seed]
    if len({cell.within.casefold() for cell in cells}) < len(cells):
        raise RecipeError("two arms or levels differ in upper and lower case alone; rename one")
    return cells


def changed(base: str, changes: Sequence[Tree], here: Path, made: Mapping[str, Path]) -> Tree:
    """The keys of a base with changes laid over it; the last change with a `base` replaces it.

    Args:
        base: A file, relative to `here` or to the working directory, or a shipped recipe.
        changes: What differs, coarse to fine.
        here: The folder of the study file.
        made: The prepared folders by name.

    Raises:
        RecipeError: A base is missing or no recipe, or a change names an unknown folder.
    """
    bases = [change["base"] for change in changes if "base" in change]
    name = bases[-1] if bases else base
    if not isinstance(name, str):
        raise RecipeError(f"base is {name!r}; expected a path or the name of a recipe")
    fields = tree(here / name if (here / name).is_file() else found(name))
    for change in changes:
        if "seed" in change:
            raise RecipeError("a change sets seed; a study says its seeds once, under seeds")
        own = {key: filled(value, made, key) for key, value in change.items() if key != "base"}
        fields = merged(fields, anchored(own, here))
    return fields


def filled(value: JsonValue, made: Mapping[str, Path], key: str = "") -> JsonValue:
    """A value with the prepared folders that it names; other names in braces stay.

    Args:
        value: A change, or a part of one.
        made: The prepared folders by name.
        key: The key under which it stands, or one above whose inner keys are somebody else's.

    Raises:
        RecipeError: A key that names a folder names one that the study does not prepare.
    """
    if isinstance(value, dict):
        return {k: filled(one, made, key if key in OPAQUE else k) for k, one in value.items()}
    if isinstance(value, list):
        return [filled(one, made, key) for one in value]
    if not isinstance(value, str):
        return value

    def folder(match: re.Match[str]) -> str:
        if match[1] in made:
            return str(made[match[1]])
        if key not in FOLDERS:
            return match[0]
        known = nearest(match[1], made) if made else "nothing is prepared"
        raise RecipeError(f"{key} is {value!r}, but prepare has no {match[1]!r}; {known}")

    return NAMED.sub(folder, value)


def nested(setting: Mapping[str, JsonValue]) -> list[Tree]:
    """Dotted keys as changes, one for each key.

    Examples:
        >>> nested({"learner.lr": 0.1})
        [{'learner': {'lr': 0.1}}]
    """
    changes: list[Tree] = []
    for key, value in setting.items():
        change: JsonValue = value
        for part in reversed(key.split(".")):
            change = {part: change}
        assert isinstance(change, dict)
        changes.append(change)
    return changes
