"""The floors of the library: no module imports one that stands above it."""

import ast
from pathlib import Path

import pytest

from latentwire.fingerprint import ROOT

# From the ground up. What is on one floor may import its own floor and those below.
FLOORS = (
    (
        "errors",
        "abilities",
        "files",
        "settings",
        "arms_table",
        "layout",
        "commands",
        "fingerprint",
        "configuration",
        "documents",
        "results",
    ),
    (
        "provenance",
        "integrity",
        "artefacts",
        "hub",
        "device",
        "processes",
        "resuming",
        "progress",
        "cli",
        "attention",
        "packing",
        "lm",
        "weights",
        "templates",
        "table",
        "embeddings",
        "first_layer",
    ),
    ("data",),
    ("compression",),
    ("adapter",),
    ("codecs",),
    ("arms",),
    ("training", "evaluation"),
    ("readers", "decisions"),
    ("standalone", "report"),
    ("__main__",),
)
FLOOR_OF = {module: number for number, floor in enumerate(FLOORS) for module in floor}
# Not of the library's own floors: names that users import.
PUBLIC = {"core_utils"}
# Rooms of one floor that know nothing of each other.
APART = ({"training", "evaluation"}, {"readers", "decisions"}, {"standalone", "report"})


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The rooms that a module imports, whenever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("latentwire.")}
    return found


MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py" and room(path) not in PUBLIC)


def test_every_room_has_its_floor():
    assert {room(path) for path in MODULES} == FLOOR_OF.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up(path: Path):
    own = room(path)
    for other in imported(path) - {own, "__version__"}:
        assert FLOOR_OF[other] <= FLOOR_OF[own], f"{own} imports {other}, which stands above it"
        assert not any({own, other} <= rooms for rooms in APART), f"{own} and {other} should not know each other"
