"""What the recipes of the runs share, where they differ, and what that means in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from eva.reading import Run
from eva.report.marks import MISSING


@dataclass(frozen=True)
class Setting:
    """One key of the recipes."""

    key: str
    """The path of the key, with dots."""
    values: tuple[str, ...]
    """Its value in each run."""

    @property
    def differs(self) -> bool:
        """Whether the runs do not agree."""
        return len(set(self.values)) > 1


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Every key of the recipes, in their order."""
    flat = [_flat(run.recipe) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    # A part that is null in one recipe and filled in another would show as a key without a value.
    heads = {key for key in keys if any(other.startswith(key + ".") for other in keys)}
    found = []
    for key in keys:
        if key in heads and not any(one.get(key, "") == "null" for one in flat):
            continue
        found.append(Setting(key, tuple(_value(key, one, key in heads) for one in flat)))
    return found


def facts(runs: Sequence[Run]) -> list[Setting]:
    """Versions, commit and host of the runs."""
    flat = [_flat(run.facts) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    return [Setting(key, tuple(one.get(key, MISSING) for one in flat)) for key in keys]


def seeds(runs: Sequence[Run]) -> list[str]:
    """The different seeds of the runs."""
    return list(dict.fromkeys(str(run.recipe.get("seed", "unknown")) for run in runs))


def arm(recipe: Mapping[str, JsonValue]) -> str:
    """What a run trains on, in one sentence."""
    creator, new = recipe.get("creator"), recipe.get("new_prompts")
    if isinstance(new, dict):
        return "trains on new prompts in every round, drawn like the first ones."
    if not isinstance(creator, dict):
        return "trains on the given prompts, again in every round."
    select, evolve = creator.get("select"), creator.get("evolve")
    select = select if isinstance(select, dict) else {}
    by = f"by {_name(creator.get('info'))} ({_name(select.get('kind'))})"
    if creator.get("kind") == "stream":
        return (
            f"draws parents from its buffer {by} after every mini-batch and rewrites them with the "
            f"{_name(evolve)} evolver; up to {_percent(creator.get('evolved'))} of a mini-batch "
            f"are evolved prompts, and {_percent(creator.get('bootstrap'))} after the mix-up."
        )
    how = f"draws {_percent(select.get('keep'))} of the pool {by}"
    if not isinstance(evolve, dict):
        return f"{how} and trains on them as they are."
    fresh = f"{_percent(creator.get('fresh'))} of its lessons are newborn prompts"
    return f"{how} and rewrites them with the {_name(evolve)} evolver; {fresh}."


def differences(runs: Sequence[Run]) -> tuple[bool, list[str]]:
    """Whether the runs train on other prompts, and the other keys in which they differ."""
    choice = ("creator", "new_prompts", "prompts")
    keys = [found.key for found in settings(runs) if found.differs and found.key != "name"]
    others = [key for key in keys if key.split(".")[0] not in choice]
    return len(others) < len(keys), others


def _flat(part: JsonValue, path: str = "") -> dict[str, str]:
    if isinstance(part, dict) and part:
        found: dict[str, str] = {}
        for key, value in part.items():
            found |= _flat(value, f"{path}.{key}" if path else str(key))
        return found
    if isinstance(part, dict):
        return {path: "{}"} if path else {}
    if isinstance(part, bool) or part is None:
        return {path: {True: "true", False: "false", None: "null"}[part]}
    if isinstance(part, list):
        return {path: "[" + ", ".join(str(value) for value in part) + "]"}
    return {path: f"{part:g}" if isinstance(part, float) else str(part)}


def _value(key: str, flat: Mapping[str, str], head: bool) -> str:
    if head:
        return flat.get(key, "see below")
    return flat.get(key, MISSING)


def _percent(share: JsonValue) -> str:
    return f"{100 * share:.0f} %" if isinstance(share, int | float) else "a part"


def _name(part: JsonValue) -> str:
    if isinstance(part, dict):
        return str(part.get("call") or part.get("kind") or "own")
    return str(part)
