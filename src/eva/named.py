"""Strings that name code: "module:function" of a recipe, found beside it first.

Only `eva.build` (and `eva check`, to find a typo early) turns such strings into functions.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from eva.contracts import plug_in
from eva.errors import RecipeError
from eva.parts import PythonCall
from eva.recipe import nearest


def called(part: PythonCall, here: Path) -> Any:
    """Your own function, or what it returns for the arguments that the recipe gives."""
    function = named(part.call, here)
    if not part.args:
        return function
    try:
        inspect.signature(function).bind(**part.args)
    except TypeError as error:
        raise RecipeError(f"{part.call} cannot be called with {part.args}: {error}") from error
    with plug_in(f"function {part.call}"):
        return function(**part.args)


def named(call: str, here: Path) -> Callable[..., Any]:
    """The function that "module:function" names, looked for beside the recipe too.

    Raises:
        RecipeError: There is no such module or function, or it is not callable.
    """
    module_name, _, path = call.partition(":")
    try:
        found: Any = _module(module_name, here.resolve())
    except Exception as error:
        raise RecipeError(
            f"{call}: the module {module_name!r} cannot be imported "
            f"({type(error).__name__}: {error}); it is looked for in {here.resolve()}, in the "
            "working directory and among the installed packages"
        ) from error
    for name in path.split("."):
        known = vars(found) if isinstance(found, ModuleType | type) else {}
        if name not in known:
            public = [key for key in known if not key.startswith("_")]
            raise RecipeError(f"{call}: there is no {name!r}; {nearest(name, public)}")
        found = known[name]
    if not callable(found):
        raise RecipeError(f"{call} is a {type(found).__name__}; expected a function")
    return found  # type: ignore[no-any-return]  # a plug-in's type is checked at its seam


def _module(name: str, here: Path) -> ModuleType:
    """The module of a file beside the recipe or in the working directory, or an installed one.

    A file is loaded by its place, so two recipes may each have their own reward.py in one process.
    """
    for folder in (here, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for what the module itself imports
    files = [folder / f"{name}.py" for folder in (here, Path.cwd())]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return importlib.import_module(name)
    own = f"{name}@{file}"
    if own not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, file)
        assert spec is not None and spec.loader is not None
        sys.modules[own] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[own])
        except BaseException:
            del sys.modules[own]
            raise
    return sys.modules[own]
