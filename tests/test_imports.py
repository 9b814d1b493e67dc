"""The arrows of the house point one way, and a file or function that grows too long is seen."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "eva"

LEVELS = [
    {"errors", "processes", "seeds"},
    {"records", "extras"},
    {"parts", "protocols", "words", "yields"},
    {"formulas"},
    {"config", "contracts", "adapt", "checkpoints", "diversity"},
    {"pairs", "store", "recipe", "game", "costs"},
    {"reading", "findings", "stages", "toy", "named", "export", "jobs"},
    {"evaluation", "stream"},
    {"online"},
    {"loop", "mirror"},
    {
        "backends",
        "evolve",
        "gates",
        "learn",
        "playground",
        "report",
        "rewards",
        "serving",
        "sources",
        "trainers",
    },
    {"build"},
    {"start"},
    {"study"},
    {"cli"},
    {"__init__", "__main__"},
]
"""From what everything rests on to what rests on everything."""

PLUG_INS = {
    "backends", "evolve", "gates", "learn", "playground", "report", "rewards", "serving", "sources",
    "trainers",
}  # fmt: skip
MAY_IMPORT_PLUG_INS = {
    "build": PLUG_INS,
    "backends": {"serving"},
    # `eva check` reads the rubrics and templates that a recipe names; it loads nothing heavy.
    "cli": {"evolve", "gates", "playground", "report", "rewards", "serving"},
    "rewards": {"backends", "serving"},
    "serving": {"backends"},
    "learn": {"backends"},  # one way to load a model
    "trainers": {"backends", "serving"},
}
CORE_FOR_PLUG_INS = {
    "errors", "seeds", "records", "parts", "protocols", "adapt", "config", "formulas",
    "checkpoints", "pairs", "reading", "contracts", "store", "recipe", "export", "jobs",
    "words", "yields", "findings", "processes",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of eva that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "eva":
            names = [node.module] if node.module != "eva" else [f"eva.{a.name}" for a in node.names]
            found |= {name.split(".")[1] for name in names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("eva.")}
    return {name for name in found if (SRC / name).is_dir() or (SRC / f"{name}.py").exists()}


def level(name: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if name in names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SRC).as_posix())
def test_imports_point_one_way(path):
    here = part(path)
    for other in imported(path) - {here}:
        if here in PLUG_INS:
            allowed = CORE_FOR_PLUG_INS | MAY_IMPORT_PLUG_INS.get(here, set())
            assert other in allowed, f"the plug-in {here} imports {other}"
        elif other in PLUG_INS:
            assert other in MAY_IMPORT_PLUG_INS.get(here, set()), f"{here} imports {other}"
        else:
            assert level(other) < level(here), f"{here} imports {other}, which stands above it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SRC).as_posix())
def test_files_and_functions_stay_short_and_flat(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    assert len(path.relative_to(SRC).parts) <= 2
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1
            assert length <= 40, f"{node.name} has {length} lines"
