"""Fingerprints of the definitions that a stage really uses, so that Snakemake reruns what a change of logic concerns.

A fingerprint hashes syntax trees. An entry (a program, a module, or one definition of it) counts whole; of all modules
imported on the way the statements that run when they are imported, and the functions and classes that what counts
names, transitively. A definition that calls something as it is made, or has a base class or an unknown decorator, may
be held by a registry that nobody names: it counts as a statement. Where a name can't be followed, more counts: all of
a module that is passed around, star-imported, imported in a function, asked for a name that it lacks, or asking for
its ``globals()``; the whole package for an import by a string, ``eval``, ``exec``, and a relative import. Not what is
under ``if TYPE_CHECKING``, comments, docstrings, formatting, help texts, and the words of log calls and raised errors.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

PACKAGE, ROOT = "latentwire", Path(__file__).parent
# What can't change a result, and for which users (a program's file name, or a module). As an entry it still counts.
LEFT_OUT = {
    "arms_table": "*",  # whoever evaluates arms names their rows; an entry where tables are written
    "codecs.fitting": "fit_codec.py",  # its rule names the module of the one family that it fits
    "codecs.families": "*",  # whoever reads codecs names the modules of their families
    "codecs.own": "*",  # rules name the content of a user's own files
    "decisions.final_reads.record_read": "evaluate.py",  # a note for the verdict: nothing of it comes back
    "fingerprint": "*",  # it and Work name the folder of unfinished work: under another name that starts anew
    "resuming.work": "*",
    "integrity": "*",  # it refuses a file, or changes nothing of what is read
    "layout": "*",  # where files are: their paths are inputs, outputs and parameters of rules
    "hub.unavailable": "*",  # words of an error that ends the program
    "provenance.write_provenance": "*.py",  # beside a finished result; an entry if a later stage reads it
    "settings": "*",  # values reach a program as flags, which are parameters of its rule
    "resuming.stopping": "*",  # a run goes on or has no result, and what continues it takes the steps that were left
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_ACTING = (ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
_DECORATORS = {"dataclasses.dataclass", "functools.cache", "contextlib.contextmanager", "torch.no_grad"}
_DECORATORS |= {"torch.inference_mode", "classmethod", "property", "staticmethod"}  # which keep no lists
_LOGS = {f"{log}.{level}" for log in ("log", "logging") for level in "debug info warning error exception".split()}
_BY_STRING = re.compile(r"(__import__|builtins|eval|exec|importlib(?!\.metadata)|pkgutil|runpy|sys\.modules)\b")


def _imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield alias.asname or alias.name, f"{PACKAGE}.*" if getattr(node, "level", 0) else module + alias.name


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What of a statement runs when its module is imported: no bodies of functions."""
    pending = [node]
    while pending:
        yield (node := pending.pop())
        pending += [*node.decorator_list, node.args] if isinstance(node, _FUNCTIONS) else ast.iter_child_nodes(node)


def _names(node: ast.AST) -> Iterator[str]:
    """Names with the attributes behind them (``a.b.c``), whatever their scope; ``a()`` if called without arguments."""
    pending = [node]
    while pending:
        node, attributes = pending.pop(), ""
        while isinstance(node, ast.Attribute):
            attributes, node = f".{node.attr}{attributes}", node.value
        if isinstance(node, ast.Name):
            yield node.id + attributes
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            yield f"{node.func.id}()"
        pending += ast.iter_child_nodes(node)


def _logic(tree: ast.Module, nodes: Iterable[ast.AST]) -> str:
    """A tree of these nodes as text, without what changes nothing; the tree is spoilt."""
    for node in nodes:
        if isinstance(node, (ast.Module, *_DEFINITIONS)):
            node.body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(call, ast.Call):
            function = f"{getattr(getattr(call.func, 'value', None), 'id', '')}.{getattr(call.func, 'attr', '')}"
            speaks = call is not node or function in _LOGS
            for text in [*(word.value for word in call.keywords if speaks or word.arg == "help"), *call.args * speaks]:
                if isinstance(text, ast.JoinedStr):
                    text.values = [inner for inner in ast.walk(text) if isinstance(inner, _ACTING)]
                elif isinstance(text, ast.Constant) and isinstance(text.value, str):
                    text.value = ""
    return ast.dump(tree).replace("JoinedStr(values=[])", "Constant(value='')")


class _Source:
    """A source file in parts: definitions by their names, and as ``""`` what runs when it is imported."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.read = name, path, cache(self._read)
        self.loads, self.imports = list[str](), dict[str, set[str]]()
        self.parts: dict[str, list[ast.stmt]] = {"": []}  # empty lists for other names that are bound
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            checks = isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
            for statement in node.orelse if checks and isinstance(node, ast.If) else [node]:
                self._add(statement, list(_at_import(statement)))

    def _add(self, statement: ast.stmt, made: list[ast.AST]) -> None:
        bound = [node.name for node in made if isinstance(node, _DEFINITIONS)]
        bound += [node.id for node in made if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        for name, meaning in (pairs := [] if isinstance(statement, _DEFINITIONS) else list(_imports(made))):
            self.imports.setdefault(name, set()).add(meaning)
        self.loads += (loads := [meaning for _, meaning in pairs if meaning.partition(".")[0] == PACKAGE])
        # Every program imports the package itself, whose constants are for its users.
        constants = len(statement.targets) if isinstance(statement, ast.Assign) and self.name == PACKAGE else 0
        named = isinstance(statement, _DEFINITIONS) or 0 < len(bound) == constants
        self.parts = {name: [] for name in [*bound, *self.imports] if name != "*"} | self.parts
        if not (loads and isinstance(statement, (ast.Import, ast.ImportFrom))):
            self.parts[bound[0] if named and self._only_binds(made) else ""].append(statement)

    def _only_binds(self, made: list[ast.AST]) -> bool:
        """Whether making a definition does nothing else, so that its name alone leads to it."""
        decorators = [decorator for node in made for decorator in getattr(node, "decorator_list", ())]
        known = all(self._meanings(ast.unparse(getattr(d, "func", d))) <= _DECORATORS for d in decorators)
        acts: list[ast.AST] = [node for node in made if isinstance(node, (*_ACTING, ast.Import, ast.ImportFrom))]
        acts += [node for node in made if isinstance(node, ast.ClassDef) and (node.bases or node.keywords)]
        return known and all(node in decorators for node in acts)

    def _meanings(self, name: str) -> set[str]:
        root, dot, rest = name.partition(".")
        return {f"{meaning}{dot}{rest}" for meaning in self.imports.get(root, ())} or {name}

    def _follows(self, meaning: str) -> bool:
        users = [users for place, users in LEFT_OUT.items() if f"{meaning}.".startswith(f"{PACKAGE}.{place}.")]
        return meaning.partition(".")[0] == PACKAGE and not any(fnmatchcase(self.name, user) for user in users)

    def _read(self, part: str) -> tuple[set[str], str]:
        """The names that a part leads to (behind a dot: of whose modules it runs the statements), and its text."""
        nodes = [*ast.walk(tree := ast.Module(self.parts[part], []))]
        pairs = {pair for pair in _imports(nodes) if pair[1] not in self.imports.get(pair[0], ())}
        pairs |= {(part, meaning) for meaning in self.imports.get(part, ())}
        pairs |= {(name, meaning) for name in {*_names(tree)} for meaning in self._meanings(name)}
        own = {f"{self.name}.{root}" for name, _ in pairs if self.parts.get(root := name.partition(".")[0])}
        own |= {f"{self.name}.*" for _, meaning in pairs if meaning in ("globals", "locals", "vars()", "dir()")}
        own |= {f"{PACKAGE}.*" for _, meaning in pairs if _BY_STRING.match(meaning)}
        loads = [load if load[-1] == "*" else f"{load}." for load in self.loads if not part and self._follows(load)]
        pairs = {pair for pair in pairs if self._follows(pair[1])}
        text = [_logic(tree, nodes), *(_parts(load)[-1][0].name for load in loads), *sorted(map("=".join, pairs))]
        return {*own, *loads, *(meaning for _, meaning in pairs)}, "\n".join(text)


@cache
def _source(name: str | Path) -> _Source | None:
    """A program, or a module of the package by its dotted name; None if there is no such module."""
    if isinstance(name, Path):
        return _Source(name.name, name)
    base = ROOT.joinpath(*name.split(".")[1:])
    files = (base / "__init__.py", base.with_suffix(".py")) if name.split(".")[0] == PACKAGE else ()
    return next((_Source(name, file) for file in files if file.is_file()), None)


@cache
def _parts(name: str) -> list[tuple[_Source, str]]:
    """The parts that a dotted name leads to, among them the statements of the modules on its way."""
    steps, found = name.rstrip(".").split("."), list[tuple[_Source, str]]()
    for depth, step in enumerate([*steps[1:], "*"], 1):
        place = ".".join(steps[:depth])
        if (source := _source(place)) is None:
            break
        found.append((source, ""))
        if step in source.parts:
            found += [] if name[-1] == "." else [(source, step)]
        elif not _source(f"{place}.{step}") and (name[-1] != "." or depth < len(steps)):
            found += [(source, part) for part in source.parts]
            files = sorted(source.path.parent.iterdir()) if source.path.stem == "__init__" else ()
            modules = [f"{place}.{file.stem}" for file in files if file.stem != "__init__"]
            found += [part for module in filter(_source, modules) for part in _parts(module)]
    return found


def reached(*entries: str | Path) -> dict[tuple[str, str], _Source]:
    """The parts of sources that count for programs (by path), modules and definitions; raises FileNotFoundError."""
    found, pending = dict[tuple[str, str], _Source](), list[tuple[_Source, str]]()
    for entry in entries:
        parts = _parts(f"{entry}." if (source := _source(entry)) else str(entry))
        if not source and entry not in {f"{holder.name}.{part}" for holder, part in parts}:
            raise FileNotFoundError(f"no module or definition {entry}")
        own = [(source, part) for part, nodes in source.parts.items() if nodes or not part] if source else []
        pending += parts + own
    while pending:
        source, part = pending.pop()
        if (source.name, part) not in found:
            found[source.name, part] = source
            pending += [other for name in source.read(part)[0] for other in _parts(name)]
    return found


def fingerprint(*entries: str | Path) -> str:
    """A short hash of what counts for entries; see :func:`reached`."""
    found = reached(*entries)
    parts = (f"{name}\n{part}\n{found[name, part].read(part)[1]}\n" for name, part in sorted(found))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
