"""From YAML to a `Recipe`: base files, overrides, differences, and errors in one sentence.

A recipe may name a `base`, another recipe file (or a shipped one), and then holds only what
differs. Where a part changes its `kind`, it replaces the base's part instead of being merged.
"""

import difflib
import hashlib
import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, JsonValue, ValidationError

from eva.config import Recipe
from eva.errors import RecipeError, RunDirError
from eva.parts.creators import StreamCreator
from eva.parts.learners import Online

Tree: TypeAlias = dict[str, JsonValue]

MAY_CHANGE = frozenset(
    {
        "rounds",
        "learner.micro_tokens",
        "learner.gradient_checkpointing",
        "learner.share_prompts",
        "learner.save_steps",
        "learner.launch",
        "evaluate.monitor.stop",
    }
)
"""Keys that may change when a run goes on. More rounds (not fewer) do not alter those played; where
phases are shares of all rounds, they must stay. The others say how to compute, not what; they move
results by rounding alone (docs/design.md)."""

HOW = frozenset(
    {
        *("device", "rows", "threads", "memory", "eager", "tensor_parallel", "batch_tokens"),
        *("urls", "serve", "reload", "key", "concurrency", "deadline", "attempts", "patience"),
        *("price", "budget", "processes"),
    }
)
"""Keys of models and evolvers, at any depth, that say how to compute as well, or whom to pay."""

FILES = frozenset({"path", "model", "rubric", "template", "templates"})
"""Keys that may name a file or folder, relative to the recipe that names it."""

LONGEST_NAME = 255
"""Characters that the name of a file can have."""

OPAQUE = frozenset({"args", "body", "env", "options"})
"""Keys whose inner keys belong to somebody else."""


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or of a shipped name such as "playground-eva".

    Args:
        name: A path, or the name of a shipped recipe.
        overrides: "key.inner=value" settings, the value in YAML, applied last; paths among them
            are relative to the working directory.

    Raises:
        RecipeError: A file is missing or is no YAML mapping, a key is unknown, a value is wrong.
    """
    path = found(name)
    return checked(_overridden(tree(path), overrides), str(path))


def checked(fields: Tree, source: str) -> Recipe:
    """The recipe of a tree of keys; `source` names it in errors."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_sentence(error)}") from error


def shipped() -> list[str]:
    """The names of the recipes that ship with eva."""
    folder = resources.files("eva") / "recipes"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def found(name: str) -> Path:
    """The file that `name` stands for.

    Raises:
        RecipeError: There is neither such a file nor such a shipped recipe.
    """
    if Path(name).is_file():
        return Path(name)
    if name in shipped():
        return Path(str(resources.files("eva") / "recipes" / f"{name}.yaml"))
    raise RecipeError(f"there is no recipe {name!r}: no such file, {nearest(name, shipped())}")


def tree(path: Path, chain: Sequence[Path] = ()) -> Tree:
    """The keys of a recipe file, those of its base included, paths made absolute.

    `chain` holds the recipes that this one is a base of.
    """
    try:
        fields = parsed(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise RecipeError(f"{path} holds {type(fields).__name__}; expected keys and values")
    try:
        fields = anchored(fields, path.parent)
    except RecursionError as error:
        raise RecipeError(f"{path} holds an alias that leads back to itself") from error
    base = fields.pop("base", None)
    if base is None:
        return fields
    if not isinstance(base, str):
        raise RecipeError(f"{path}: base is {base!r}; expected a path or the name of a recipe")
    beside = path.parent / base
    below = beside if beside.is_file() else found(base)
    if below.resolve() in {above.resolve() for above in (*chain, path)}:
        raise RecipeError(f"{path}: its base {base!r} leads back to a recipe that it is a base of")
    return merged(tree(below, (*chain, path)), fields)


def as_yaml(recipe: Recipe) -> str:
    """The whole recipe, every default written out."""
    return dumped(recipe.model_dump(mode="json"))


def dumped(value: JsonValue) -> str:
    """A value as YAML that `parsed` reads back as it was: the text "1e3" is quoted."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def digest(recipe: Recipe) -> str:
    """What the recipe is, 20 hexadecimal digits; keys that may change on the way do not count."""
    fields = {key: value for key, value in leaves(recipe) if not _may_change(key)}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def differences(a: Recipe, b: Recipe) -> list[tuple[str, JsonValue, JsonValue]]:
    """Where two recipes differ: (dotted key, value in a, value in b); None where one lacks it."""
    flat_a, flat_b = dict(leaves(a)), dict(leaves(b))
    keys = [*flat_a, *(key for key in flat_b if key not in flat_a)]
    return [
        (key, flat_a.get(key), flat_b.get(key))
        for key in keys
        if flat_a.get(key) != flat_b.get(key)
    ]


def must_agree(standing: str, coming: str) -> None:
    """Refuse to go on in a run directory with another recipe than the one that made it.

    Raises:
        RunDirError: Lists the keys that differ.
    """
    try:
        old = Recipe.model_validate(parsed(standing))
    except (ValidationError, yaml.YAMLError) as error:
        raise RunDirError(
            "the recipe.yaml in the run directory cannot be read by this eva; use the eva that "
            "made it, or another folder"
        ) from error
    new = Recipe.model_validate(parsed(coming))
    rows = [row for row in differences(old, new) if not _may_change(row[0])]
    if new.rounds < old.rounds or (new.rounds > old.rounds and _spans_rounds(new)):
        rows.append(("rounds", old.rounds, new.rounds))
    if rows:
        listed = "; ".join(f"{key} is {was!r} there and {now!r} here" for key, was, now in rows)
        raise RunDirError(
            f"the run directory was made by another recipe: {listed}. Give this run another "
            "folder, or the old values"
        )


def _spans_rounds(recipe: Recipe) -> bool:
    """Whether phases or learning rates are shares of all rounds, which then cannot grow."""
    return isinstance(recipe.creator, StreamCreator) or isinstance(recipe.learner, Online)


def _may_change(key: str) -> bool:
    """Whether a run may go on with another value.

    What lies at a path or in the policy's folder is compared by its content (`eva.build.inputs`),
    so a project may be moved.
    """
    if key in MAY_CHANGE or key.endswith(".path") or key == "policy.model":
        return True
    return not key.startswith("learner.") and _says_how(key)


def _says_how(key: str) -> bool:
    """Whether a key, or one above it, is in `HOW`; names that users give are none of ours."""
    parts = iter(key.split("."))
    for part in parts:
        if part in OPAQUE or part == "operators":
            return False
        if part == "sets":
            next(parts, None)
        elif part in HOW:
            return True
    return False


def nearest(name: str, known: Iterable[str]) -> str:
    """Half a sentence: the nearest known name and the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known: {', '.join(names)}"


def parsed(text: str) -> Any:
    """The value of a YAML text; 1e-6 is a number, as in YAML 1.2.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    """The safe loader; PyYAML wants a class of one's own to add to its numbers."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper; it quotes a text that the loader takes for something else."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def anchored(fields: Tree, folder: Path, place: str = "") -> Tree:
    """Make the relative paths of files and folders absolute: they are relative to `folder`.

    Args:
        fields: A part of a recipe, or all of it.
        folder: Where the recipe lies.
        place: The key under which the part stands.
    """
    is_data_set = fields.get("kind") == "dataset"
    # What running servers call a model that is only asked is no path, even if there is such a file.
    is_name = "urls" in fields and place != "policy"
    found: Tree = {}
    for key, value in fields.items():
        if key in FILES and isinstance(value, str) and not (key == "model" and is_name):
            found[key] = _located(value, folder, may_be_name=key != "path" or is_data_set)
        else:
            found[key] = value if key in OPAQUE else _within(value, folder, key)
    return found


def _within(value: JsonValue, folder: Path, place: str) -> JsonValue:
    if isinstance(value, dict):
        return anchored(value, folder, place)
    return [_within(one, folder, place) for one in value] if isinstance(value, list) else value


def _located(value: str, folder: Path, *, may_be_name: bool) -> str:
    """An absolute path; what may be a name (a hub id, a shipped text) stays if no file is there."""
    is_text = "\n" in value or len(value) > LONGEST_NAME
    if may_be_name and (is_text or not (folder / value).exists()):
        return value
    return str((folder / value).resolve())


def merged(base: Tree, over: Mapping[str, JsonValue]) -> Tree:
    """The keys of a recipe with others laid over it; a part of another kind replaces the old."""
    fields = dict(base)
    for key, value in over.items():
        below = fields.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and _is_same_kind(below, value):
            fields[key] = merged(below, value)
        else:
            fields[key] = value
    return fields


def _is_same_kind(below: Tree, over: Tree) -> bool:
    return over.get("kind", below.get("kind")) == below.get("kind")


def _overridden(fields: Tree, overrides: Sequence[str]) -> Tree:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {override!r}: expected key=value, e.g. --set learner.lr=1e-6")
        try:
            value: JsonValue = parsed(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {override!r}: {text!r} is no YAML value") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        assert isinstance(value, dict)
        fields = merged(fields, anchored(value, Path.cwd()))
    return fields


def leaves(recipe: Recipe) -> list[tuple[str, JsonValue]]:
    """Every choice of a recipe: dotted key and value."""
    return list(flat(recipe.model_dump(mode="json")))


def flat(value: JsonValue, path: str = "") -> Iterable[tuple[str, JsonValue]]:
    """Dotted keys of a tree, and what stands there."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from flat(inner, f"{path}.{place}")
    else:
        yield path, value


def _sentence(error: ValidationError) -> str:
    """The first fault of a recipe as one sentence, and how many more there are."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    loc, kind, context = tuple(fault["loc"]), fault["type"], fault.get("ctx", {})
    key = _dotted(loc)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if kind == "extra_forbidden":
        model = _model_at(loc[:-1])
        known = nearest(str(loc[-1]), model.model_fields if model else ())
        return f"unknown key {key!r}; {known}{more}"
    if kind == "missing":
        return f"the key {key!r} is missing{more}"
    if kind == "literal_error":
        names = re.findall(r"'([^']+)'", str(context["expected"]))
        return f"{key} is {fault['input']!r}; {nearest(str(fault['input']), names)}"
    if kind == "union_tag_not_found":
        expected = context["discriminator"].strip("'")
        return f"{key!r} has no {expected!r}, which says what kind of part it is{more}"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return f"{key}.kind is {context['tag']!r}; {nearest(context['tag'], tags)}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    came = f", not {fault['input']!r:.80}" if not isinstance(fault["input"], dict) else ""
    return f"{key + ': ' if key else ''}{message[0].lower()}{message[1:]}{came}{more}"


def _dotted(loc: Sequence[int | str]) -> str:
    """The key as a reader writes it: without the tags that tell the kinds of a part apart."""
    parts: list[str] = []
    for depth, part in enumerate(loc):
        is_tag = _model_at(loc[:depth]) is None and _model_at(loc[: depth + 1]) is not None
        if not is_tag and not str(part).startswith("literal["):
            parts.append(str(part))
    return ".".join(parts)


def _model_at(loc: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that stands at a place of a recipe, or None at a union or a plain value."""
    here: object = Recipe
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:
            here = _inner(here, str(part))
        here = _bare(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _bare(annotation: object) -> object:
    """An annotation without Annotated and without "or None"."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        options = [_bare(a) for a in get_args(annotation) if a is not type(None)]
        return options[0] if len(options) == 1 else Union[tuple(options)]  # noqa: UP007
    return annotation


def _inner(annotation: object, part: str) -> object:
    """What stands below a key of a mapping, or the member of a union with the tag `part`."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    for option in get_args(annotation):
        bare = _bare(option)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            kind = bare.model_fields.get("kind")
            if kind is not None and part in get_args(kind.annotation):
                return bare
    return None
