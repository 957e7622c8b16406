"""Fingerprints of the code that a stage really uses, so that Snakemake reruns what a change of logic concerns.

A fingerprint hashes the syntax trees, without docstrings, of every module of this package that an entry imports,
directly or not; imports inside functions count. Comments, docstrings and formatting change nothing. Modules that
can't change a result are left out. Standard library only: the Snakefile imports this.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "latentwire"
ROOT = Path(__file__).parent
# The lazy __init__, the command line, provenance, and the stand-alone program around Phase 1.
LEFT_OUT = {PACKAGE, *(f"{PACKAGE}.{name}" for name in ("cli", "provenance", "standalone", "layout", "errors"))}


def _module_file(name: str) -> Path | None:
    """The source file of a module of the package, or None where there is no such module."""
    base = ROOT.joinpath(*name.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(tree: ast.AST) -> set[str]:
    """Modules of the package that a tree imports, anywhere but under ``if TYPE_CHECKING``."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if _is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        pending.extend(ast.iter_child_nodes(node))
    return {name for name in found if name.split(".")[0] == PACKAGE and _module_file(name)}


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
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
    """What a source file imports from the package, and its tree without docstrings as text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = frozenset(_imports(tree))
    return imports, ast.dump(_without_docstrings(tree))


def reachable_modules(entries: Iterable[str | Path]) -> dict[str, Path]:
    """Modules of the package that entries (module names, or scripts) import, directly or not, without ``LEFT_OUT``.

    An entry given as a module name is part of the result; a script is not.

    Raises:
        FileNotFoundError: an entry does not exist.
    """
    found: dict[str, Path] = {}
    pending: list[str] = []
    for entry in entries:
        if isinstance(entry, Path):
            pending += _parsed(entry)[0]
        elif _module_file(entry) is None:
            raise FileNotFoundError(f"no module {entry}")
        else:
            pending.append(entry)
    while pending:
        name = pending.pop()
        path = _module_file(name)
        if name in found or name in LEFT_OUT or path is None:
            continue
        found[name] = path
        pending += _parsed(path)[0]
        parent = name.rpartition(".")[0]
        if parent:
            pending.append(parent)
    return dict(sorted(found.items()))


def fingerprint(*entries: str | Path) -> str:
    """A short hash of the logic that entries use; see :func:`reachable_modules`."""
    digest = hashlib.sha256()
    for name, path in reachable_modules(entries).items():
        digest.update(f"{name}\n{_parsed(path)[1]}\n".encode())
    return digest.hexdigest()[:16]
