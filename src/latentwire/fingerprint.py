"""Fingerprints of the code that a stage really uses, so that Snakemake reruns what a change of logic concerns.

A fingerprint hashes the syntax trees, without docstrings and help texts, of its entries and of every module of this
package that they import, directly or not; imports inside functions count. Comments, docstrings, help texts and
formatting change nothing. Modules that can't change a result are left out. Standard library only: the Snakefile
imports this.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TypeGuard

PACKAGE = "latentwire"
ROOT = Path(__file__).parent
# The lazy __init__, the table of arms (a rule names its arms' modules and rows), the command line, settings (which
# reach a program as flags, parameters of its rule), errors, provenance, paths, fingerprints themselves, where state is
# kept, and stops.
_LEFT_OUT = "arms_table cli errors fingerprint hub layout provenance settings state stopping"
LEFT_OUT = {PACKAGE, *(f"{PACKAGE}.{name}" for name in _LEFT_OUT.split())}


def _module_file(name: str) -> Path | None:
    """The source file of a module of the package, or None where there is no such module."""
    base = ROOT.joinpath(*name.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(tree: ast.AST) -> set[str]:
    """Modules of the package that a tree imports, anywhere but under ``if TYPE_CHECKING``."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if _is_type_checking(node):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        pending.extend(ast.iter_child_nodes(node))
    return {name for name in found if name.split(".")[0] == PACKAGE and _module_file(name)}


def _without_texts(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "help"]
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _parsed(path: Path) -> tuple[frozenset[str], str]:
    """What a source file imports from the package, and its tree without docstrings and help texts as text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = frozenset(_imports(tree))
    return imports, ast.dump(_without_texts(tree))


def reachable_modules(entries: Iterable[str | Path]) -> dict[str, Path]:
    """The entries (module names, or scripts) and what they import from the package, directly or not.

    Modules in ``LEFT_OUT`` are part of it only as entries.

    Returns:
        Source files by module name, or by file name for a script; sorted.

    Raises:
        FileNotFoundError: an entry does not exist.
    """
    found: dict[str, Path] = {}
    pending: list[str] = []

    def add(name: str, path: Path) -> None:
        found[name] = path
        pending.extend(_parsed(path)[0])

    for entry in entries:
        if isinstance(entry, Path):
            add(entry.name, entry)
        elif (path := _module_file(entry)) is not None:
            add(entry, path)
            pending.append(entry.rpartition(".")[0])
        else:
            raise FileNotFoundError(f"no module {entry}")
    while pending:
        name = pending.pop()
        path = _module_file(name)
        if name in found or name in LEFT_OUT or path is None:
            continue
        add(name, path)
        pending.append(name.rpartition(".")[0])
    return dict(sorted(found.items()))


def fingerprint(*entries: str | Path) -> str:
    """A short hash of the logic that entries use; see :func:`reachable_modules`."""
    digest = hashlib.sha256()
    for name, path in reachable_modules(entries).items():
        digest.update(f"{name}\n{_parsed(path)[1]}\n".encode())
    return digest.hexdigest()[:16]
