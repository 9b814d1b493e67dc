"""A study as it is written down: YAML, of which every key and number means one thing.

Numbers are decimal, as in YAML 1.2; 010, 1:30 and on are texts. A key stands once, in one spelling.
"""

import re
from pathlib import Path

import yaml
from pydantic import JsonValue

from eva.errors import RecipeError
from eva.study.plan import Study, checked_study, spelled

MERGE = "tag:yaml.org,2002:merge"
"""The key "<<"."""


def load(path: Path) -> Study:
    """The study of a file.

    Raises:
        RecipeError: It is missing, no YAML, or asks for what is not there.
    """
    try:
        fields = _fields(path)
        if not isinstance(fields, dict):
            raise RecipeError(f"{path} holds {type(fields).__name__}; expected keys and values")
        return checked_study(fields, str(path))
    except OSError as error:
        raise RecipeError(f"there is no study {str(path)!r}; name a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RecipeError(f"{path} is nested too deeply; write it flatter") from error


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's numbers and truth values: claims have a key `on`."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _firsts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9]\d*)", list("-+0123456789")),
    ("float", r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?", list("-+.0123456789")),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"({_form})$"), _firsts)


def _fields(path: Path) -> JsonValue:
    """What a file holds.

    Raises:
        RecipeError: A key stands twice.
        yaml.YAMLError: It is no YAML.
    """
    loader = _Loader(path.read_text("utf-8"))
    try:
        root = loader.get_single_node()
        _check_keys(loader, root, path)
        found: JsonValue = loader.construct_document(root) if root else None
    finally:
        loader.dispose()
    return found


def _check_keys(loader: _Loader, root: yaml.Node | None, path: Path) -> None:
    """Refuse a mapping in which a key stands twice: YAML would forget the first one.

    Raises:
        RecipeError: Names the key, in both spellings, and its line.
    """
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            known: dict[object, str] = {}
            for key, value in node.value:
                name = _name(loader, key)
                if name in known:
                    both = " and ".join(dict.fromkeys((known[name], key.value)))
                    raise RecipeError(
                        f"{path}: line {key.start_mark.line + 1}: {both} is one key, and stands "
                        "there twice; rename or remove one"
                    )
                known[name] = str(key.value)
                waiting.append(value)


def _name(loader: _Loader, key: yaml.Node) -> object:
    """What a key names; a key that is no text or number names itself."""
    if key.tag == MERGE or not isinstance(key, yaml.ScalarNode):
        return str(key.value)
    return spelled(loader.construct_object(key))
