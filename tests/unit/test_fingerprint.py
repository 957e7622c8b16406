"""Fingerprints: a definition that a program can reach changes the program's fingerprint, and nothing else does."""

import ast
import dis
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import CodeType

import pytest

from latentwire import fingerprint as module
from latentwire.arms_table import ARMS
from latentwire.fingerprint import LEFT_OUT, fingerprint, reached

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))

ENTRY = '''"""A program."""

import argparse

from latentwire import cli
from latentwire.resuming.stopping import VALUE as STOP


def main():
    """Do it."""
    argparse.ArgumentParser().add_argument("--size", type=int, default=3, help="how large")
    from latentwire.stage import work

    work()
    cli.run()
'''
STAGE = '''"""A stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentwire.family.used import VALUE  # the value

if TYPE_CHECKING:
    from latentwire.types_only import Type
else:
    from latentwire.run_time import Type


class Worker:
    """Works."""

    def go(self):
        """Go."""
        return VALUE + 1


def work():
    import latentwire.lazy as lazy

    return Worker().go() + lazy.VALUE, Type
'''
MODULES = {
    "__init__": "VERSION = 1\n",
    "cli": "def run():\n    return 1\n\n\ndef unused():\n    return 1\n",
    "stage": STAGE,
    "lazy": "VALUE = 1\n",
    "types_only": "class Type: ...\n",
    "run_time": "class Type: ...\n",
    "unrelated": "VALUE = 1\n",
    "family/__init__": '"""A family."""\n',
    "family/used": '"""Used."""\n\nVALUE = 1\n\n\ndef unused():\n    return VALUE\n',
    "family/unused": "VALUE = 1\n",
    "settings": "from latentwire.unrelated import VALUE\n",
    "stopping": "VALUE = 1\n",
}


def forget():
    module._source.cache_clear()
    module._parts.cache_clear()


class Package:
    """A package in a folder, a program that uses it, and the program's fingerprint."""

    def __init__(self, folder):
        self.folder = folder
        self.script = folder / "program.py"
        self.script.write_text(ENTRY)
        for name, text in MODULES.items():
            path = folder / f"latentwire/{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def change(self, name, old, new):
        path = self.script if name == "program" else self.folder / f"latentwire/{name}.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def fingerprint(self, *entries):
        forget()  # of one process, in which no source changes but here
        return fingerprint(self.script, *entries)

    def write(self, **modules):
        for name, text in modules.items():
            (self.folder / f"latentwire/{name}.py").write_text(text)


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path / "latentwire")
    forget()
    yield Package(tmp_path)
    forget()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stage", '"""A stage."""', '"""Another docstring."""'),
        ("stage", '"""A stage."""\n', ""),
        ("stage", '"""Works."""', '"""Works differently."""'),
        ("stage", '        """Go."""\n', ""),
        ("stage", "# the value", "# something else"),
        ("stage", "VALUE + 1", "(VALUE\n            + 1)"),
        ("stage", "\n\nclass", "\n\n\n\n# A remark.\nclass"),
        ("family/__init__", '"""A family."""\n', '"""Another family."""\n'),
        ("program", "how large", "how very large"),
        ("program", '"""A program."""', '"""Another program."""'),
    ],
)
def test_comments_docstrings_help_texts_and_formatting_change_nothing(package, name, old, new):
    before = package.fingerprint()
    package.change(name, old, new)
    assert package.fingerprint() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stage", "VALUE + 1", "VALUE + 2"),
        ("family/used", "1", "2"),  # directly imported
        ("lazy", "1", "2"),  # imported inside a function
        ("run_time", "...", "value = 1"),  # imported where types are not checked
        ("family/__init__", '"""A family."""', "VALUE = 1"),  # a package runs its own __init__
        ("program", "work()", "work() + 1"),
        ("cli", "1\n\n\ndef unused", "2\n\n\ndef unused"),  # named through its module
        ("program", "default=3", "default=4"),
    ],
)
def test_logic_changes_it(package, name, old, new):
    before = package.fingerprint()
    package.change(name, old, new)
    assert package.fingerprint() != before


@pytest.mark.parametrize("name", ["unrelated", "family/unused", "types_only", "settings", "stopping"])
def test_what_is_not_imported_or_left_out_changes_nothing(package, name):
    before = package.fingerprint()
    path = package.folder / f"latentwire/{name}.py"
    path.write_text(path.read_text() + "\nCHANGED = True\n")
    assert package.fingerprint() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("family/used", "return VALUE", "return VALUE + 1"),
        ("cli", "def unused():\n    return 1", "def unused():\n    return 2"),
        ("__init__", "VERSION = 1", "VERSION = 2"),
    ],
)
def test_definitions_that_nothing_names_change_nothing(package, name, old, new):
    before = package.fingerprint()
    package.change(name, old, new)
    assert package.fingerprint() == before


def test_what_is_left_out_counts_as_an_entry(package):
    entry = "latentwire.settings"
    before = package.fingerprint(entry)
    assert before != package.fingerprint()
    package.change("unrelated", "1", "2")  # which it imports
    assert package.fingerprint(entry) != before


def test_names_and_order_of_entries(package):
    one, other = "latentwire.lazy", "latentwire.family.unused"
    assert package.fingerprint(one, other) == package.fingerprint(other, one, one)
    assert package.fingerprint(other) != package.fingerprint("latentwire.unrelated")  # equal text, another module


def test_a_definition_as_an_entry(package):
    entry = "latentwire.family.used.unused"
    before = package.fingerprint(entry)
    package.change("family/used", "return VALUE", "return -VALUE")
    assert package.fingerprint(entry) != before


@pytest.mark.parametrize("entry", ["latentwire.nowhere", "latentwire.stage.nothing"])
def test_an_entry_that_does_not_exist(package, entry):
    with pytest.raises(FileNotFoundError, match=f"no module or definition {entry}"):
        package.fingerprint(entry)


@pytest.mark.parametrize(
    "call",
    [
        'raise ValueError("WORDS")',
        'raise ValueError(f"WORDS {x}")',
        'raise ValueError(f"WORDS {len(x)}") from None',
        'log.warning("WORDS %s", x)',
        'logging.info("WORDS %d", len(x))',
        'log.error(f"WORDS {x}")',
    ],
)
def test_words_of_errors_and_logs_change_nothing(package, call):
    text = f"import logging\nlog = logging.getLogger(__name__)\n\ndef work(x=1):\n    {call}\n"
    package.write(stage=text)
    before = package.fingerprint()
    package.change("stage", "WORDS", "other words")
    assert package.fingerprint() == before
    package.change("stage", "x", "y")
    assert package.fingerprint() != before


# What leads to VALUE or function() of latentwire.far other than by their names: (stage, far).
FAR = "VALUE = 1\n\n\ndef function():\n    return 1\n"
ROUNDABOUT = {
    "passed around": ("from latentwire import far\n\ndef work():\n    return getattr(far, 'fun' + 'ction')()\n", FAR),
    "aliased": ("import latentwire.far as f\n\ndef work():\n    g = f\n    return g.function()\n", FAR),
    "dotted": ("import latentwire.far\n\ndef work():\n    return latentwire.far.function()\n", FAR),
    "star": ("from latentwire.far import *\n\ndef work():\n    return function()\n", FAR),
    "by a constant string": (
        "from importlib import import_module as load\n\ndef work():\n    return load('latentwire.far').function()\n",
        FAR,
    ),
    "by a string": (
        "import importlib\n\ndef work(name='far'):\n    return importlib.import_module(f'latentwire.{name}')\n",
        FAR,
    ),
    "__import__": ("def work():\n    return __import__('latentwire.far')\n", FAR),
    "exec": ("def work():\n    exec('from latentwire.far import function; function()')\n", FAR),
    "sys.modules": ("import sys\n\ndef work():\n    return sys.modules['latentwire.far'].function()\n", FAR),
    "relative": ("from .far import function\n\ndef work():\n    return function()\n", FAR),
    "re-exported": ("from latentwire.family import function\n\ndef work():\n    return function()\n", FAR),
    "in a class": ("class Work:\n    from latentwire.far import function\n\ndef work():\n    return Work.function()\n", FAR),
    "class attribute": ("from latentwire.far import function\n\nclass Work:\n    go = function\n\ndef work():\n    return Work.go()\n", FAR),
    "default argument": ("from latentwire.far import function\n\ndef work(go=function):\n    return go()\n", FAR),
    "decorator": ("from latentwire.far import function\n\n@function\ndef work():\n    return 1\n", FAR),
    "table": ("from latentwire.far import function\n\nTABLE = {'x': function}\n\ndef work():\n    return TABLE['x']()\n", FAR),
    "patched": ("import latentwire.lazy\nfrom latentwire import far\n\nlatentwire.lazy.VALUE = far.function\n\ndef work():\n    return 1\n", FAR),
    "globals": ("from latentwire.far import look\n\ndef work():\n    return look('function')\n", FAR + "\n\ndef look(name):\n    return globals()[name]()\n"),
    "module __getattr__": ("from latentwire.far import anything\n\ndef work():\n    return anything\n", FAR + "\n\ndef __getattr__(name):\n    return function\n"),
    "registry": ("from latentwire.far import TABLE\n\ndef work():\n    return TABLE['x']()\n", "TABLE = {}\n\ndef register(f):\n    TABLE['x'] = f\n    return f\n\n@register\ndef function():\n    return 1\n"),
    "registry with a known name": ("from latentwire.far import TABLE\n\ndef work():\n    return TABLE['x']()\n", "from functools import cache\nTABLE = {}\n\ndef register(g):\n    return lambda f: TABLE.setdefault('x', f)\n\n@register(cache)\ndef function():\n    return 1\n"),
    "subclasses": ("from latentwire.far import Base\n\ndef work():\n    return Base.__subclasses__()[0]().function()\n", "class Base: ...\n\nclass Own(Base):\n    def function(self):\n        return 1\n"),
    "only loaded": ("import latentwire.far\n\ndef work():\n    return 1\n", "import torch\n\ntorch.set_num_threads(1)\n\ndef function():\n    return 1\n\ntorch.x = function\n"),
    "loaded inside": ("def work():\n    import latentwire.far\n", "import torch\n\ndef function():\n    return 1\n\ntorch.x = function\n"),
    "conditional": ("try:\n    from latentwire.far import function\nexcept ImportError:\n    function = None\n\ndef work():\n    return function()\n", FAR),
    "conditional definition": ("from latentwire.far import function\n\ndef work():\n    return function()\n", "try:\n    import there\nexcept ImportError:\n    def function():\n        return 1\n"),
}  # fmt: skip


@pytest.mark.parametrize("way", ROUNDABOUT)
def test_what_is_reached_in_a_roundabout_way_counts(package, way):
    stage, far = ROUNDABOUT[way]
    package.write(stage=stage, far=far, **{"family/__init__": "from latentwire.far import function\n"})
    before = package.fingerprint()
    package.change("far", "return 1", "return 2")
    assert package.fingerprint() != before


@pytest.mark.parametrize("setting", ["os.environ['THREADS'] = '1'", "KEPT = os.environ['THREADS'] = '1'"])
def test_settings_that_the_package_makes_count(package, setting):
    package.write(__init__=f"import os\n\n{setting}\n")
    before = package.fingerprint()
    package.change("__init__", "'1'", "'2'")
    assert package.fingerprint() != before


def test_another_meaning_of_a_name_counts(package):
    package.write(
        stage="from latentwire.far import one as a, two as b\n\ndef work():\n    return a() - b()\n",
        far="def one():\n    return 1\n\ndef two():\n    return 2\n",
    )
    before = package.fingerprint()
    package.change("stage", "one as a, two as b", "two as a, one as b")
    assert package.fingerprint() != before


# The programs as the rules run them: with these entries besides.
PROGRAMS = {path.name: (path,) for path in SCRIPTS}
PROGRAMS["prepare_data.py"] += ("latentwire.provenance.write_provenance",)
for _written in ("final_validation.py", "report.py"):
    PROGRAMS[_written] += ("latentwire.arms_table",)
FAMILIES = tuple(dict.fromkeys(row.family for row in ARMS.values() if row.codec))
for _family in FAMILIES:
    PROGRAMS[f"fit_codec {_family}"] = (*PROGRAMS["fit_codec.py"], f"latentwire.codecs.{_family}")
for _family in ("adapted", "adapted_product", *FAMILIES):
    for _reader in ("evaluate.py", "measure_reconstruction.py"):
        PROGRAMS[f"{_reader} {_family}"] = (*PROGRAMS[_reader], f"latentwire.codecs.{_family}")
TRAINING = ("train_phase1.py", "train_phase2.py", "train_quantised.py", "train_bottleneck.py")
EVALUATIONS = tuple(name for name in PROGRAMS if name.startswith("evaluate.py"))


class Tree:
    """The library and the programs, of which one file at a time has another text; the rest is parsed once."""

    def __init__(self):
        self.files = {path.name: path for path in SCRIPTS}
        for path in sorted(module.ROOT.rglob("*.py")):
            name = ".".join(("latentwire", *path.relative_to(module.ROOT).with_suffix("").parts))
            self.files[name.removesuffix(".__init__")] = path
        self.texts = {name: path.read_text() for name, path in self.files.items()}
        self.sources = {}
        self.before = {}

    def source(self, name):
        name = name.name if isinstance(name, Path) else name
        if name not in self.sources and name in self.files:
            text, path = self.texts[name], self.files[name]

            class Text(type(path)):
                def read_text(self, encoding=None):
                    return text

            self.sources[name] = module._Source(name, Text(path))
        return self.sources.get(name)

    def changed(self, edits, programs=PROGRAMS):
        """The programs whose fingerprints differ with other texts of files."""
        self.before |= {name: fingerprint(*PROGRAMS[name]) for name in programs if name not in self.before}
        texts, sources = dict(self.texts), dict(self.sources)
        self.texts |= edits
        for name in edits:
            self.sources.pop(name, None)
        module._parts.cache_clear()
        try:
            return {name for name in programs if fingerprint(*PROGRAMS[name]) != self.before[name]}
        finally:
            self.texts, self.sources = texts, sources
            module._parts.cache_clear()


@pytest.fixture(scope="module")
def tree():
    made = Tree()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_source", made.source)
        module._parts.cache_clear()
        yield made
    module._parts.cache_clear()


def replaced(tree, *edits):
    texts = {}
    for name, old, new in edits:
        text = texts.get(name, tree.texts[name])
        assert old in text, (name, old)
        texts[name] = text.replace(old, new)
    return texts


@pytest.mark.parametrize(
    ("edits", "unchanged"),
    [
        ([("latentwire.configuration", "is above gate.threshold", "is more than gate.threshold")], PROGRAMS),
        (
            [
                (
                    "latentwire.arms_table",
                    '    Arm("mean"',
                    '    Arm("new", "codec", "new"),\n    Arm("mean"',
                )
            ],
            [*EVALUATIONS, *TRAINING, "measure_reconstruction.py", "prepare_data.py", "score.py"],
        ),
        ([("latentwire.evaluation.store", "they are generated again", "so they are made anew")], PROGRAMS),
        ([("latentwire.resuming.checkpoint", "trying the one before it", "the one before it is next")], PROGRAMS),
        (
            [
                (name, "read_jsonl", "read_lines")
                for name in ("latentwire.files", "latentwire.decisions.evidence", "score.py")
            ],
            [*TRAINING, *EVALUATIONS, "prepare_data.py", "gate.py"],
        ),
        ([("latentwire.compression.counts", "must be between 1 and the", "has to be between 1 and the")], PROGRAMS),
        ([("latentwire.decisions.final_reads", '"earlier"', '"before"')], [*EVALUATIONS, *TRAINING]),
    ],
    ids=["configuration", "arms_table", "store", "checkpoint", "read_jsonl", "counts", "final_reads"],
)
def test_an_edit_that_can_not_change_a_result_reruns_nothing(tree, edits, unchanged):
    assert not tree.changed(replaced(tree, *edits), unchanged)


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("latentwire.decisions.final_reads", '"earlier"', '"before"'), ["final_validation.py"]),
        (("latentwire.cli", 'set_deterministic_debug_mode("warn")', 'set_deterministic_debug_mode("error")'), TRAINING),
        (("latentwire.cli", "set_num_threads(threads)", "set_num_threads(1)"), [*EVALUATIONS, "fit_pca.py"]),
        (("latentwire.arms_table", 'Arm("mean", "floor"', 'Arm("mean", "bound"'), ["final_validation.py", "report.py"]),
        (("latentwire.provenance", '"base", "lora"', '"base",'), ["prepare_data.py"]),
    ],
)  # fmt: skip
def test_an_edit_that_can_change_a_result_reruns_it(tree, edit, changed):
    assert tree.changed(replaced(tree, edit), changed) == set(changed)


def test_a_row_of_an_arm_says_what_determines_its_answers():
    """Why the table of arms is left out: the rules name the rows by it."""
    for row in ARMS.values():
        for other in ({"codec": "other"}, {"stage": "other"}, {"sampled": not row.sampled}, {"prompt": "other"}):
            assert replace(row, **other).determining != row.determining
        assert replace(row, legend="other").determining == row.determining


def left_out(user, target):
    return any(
        fnmatchcase(user, users) and f"{target}.".startswith(f"latentwire.{place}.")
        for place, users in LEFT_OUT.items()
    )


def nested(code):
    """A code object and all inside it."""
    return [code, *(inner for const in code.co_consts if isinstance(const, CodeType) for inner in nested(const))]


def events(code):
    """Imports with the names that they bind, and names in use with the attribute that is asked of them."""
    instructions = list(dis.get_instructions(code))
    imported = ""
    for step, after in zip(instructions, [*instructions[1:], instructions[-1]], strict=True):
        if step.opname == "IMPORT_NAME":
            imported = step.argval
            if after.opname.startswith("STORE"):
                yield "import", after.argval, imported.partition(".")[0]
            if after.opname != "IMPORT_FROM":
                yield "load", None, imported
        elif step.opname == "IMPORT_FROM":
            yield "import", after.argval, f"{imported}.{step.argval}"
        elif step.opname == "STORE_NAME":
            yield "store", step.argval, None
        elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF"):
            yield "use", step.argval, after.argval if after.opname in ("LOAD_ATTR", "LOAD_METHOD") else None


class Bytecode:
    """What programs can reach, by the instructions that Python runs: a way of its own, without any syntax tree."""

    def __init__(self, texts):
        self.run, self.definitions, self.imports, self.constants = {}, {}, {}, {}
        for name, text in texts.items():
            top = compile(text.replace("if TYPE_CHECKING:", "if 0:"), name, "exec", dont_inherit=True)
            inner = [const for const in top.co_consts if isinstance(const, CodeType)]
            self.run[name] = [top, *(code for const in inner if const.co_name[0] == "<" for code in nested(const))]
            self.definitions[name] = {const.co_name: nested(const) for const in inner if const.co_name[0] != "<"}
            found = list(events(top))
            self.imports[name] = {local: target for kind, local, target in found if kind == "import"}
            stored = {local for kind, local, _ in found if kind == "store"} - {"__doc__", "__annotations__"}
            self.constants[name] = stored - {*self.imports[name], *self.definitions[name]}

    def reach(self, entries):
        """Dotted names of definitions and constants."""
        self.found, self.loaded, self.pending = set(), set(), []
        for entry in entries:
            if isinstance(entry, Path):
                own = [*self.definitions[entry.name].values(), self.run[entry.name]]
                self.pending += [(entry.name, code, index == len(own) - 1) for index, code in enumerate(own)]
                self.found |= {f"{entry.name}.{name}" for name in self.definitions[entry.name]}
                self.found |= {f"{entry.name}.{name}" for name in self.constants[entry.name]}
            else:
                self.use("an entry", entry)
        while self.pending:
            user, code, top = self.pending.pop()
            seen = [event for part in code for event in events(part)]
            local = {} if top else {name: target for kind, name, target in seen if kind == "import"}
            for kind, name, target in seen:
                if kind in ("import", "load"):
                    self.use(user, target, loads=top or kind == "load" or target in self.run)
                elif kind == "use" and (meaning := local.get(name) or self.imports[user].get(name)):
                    self.use(user, meaning if target is None else f"{meaning}.{target}")
                elif kind == "use" and (name in self.definitions[user] or name in self.constants[user]):
                    self.use(user, f"{user}.{name}")  # of a program all counts already
        # Constants are made when their module is imported; the package's own are for its users.
        return self.found | {f"{m}.{name}" for m in self.loaded - {"latentwire"} for name in self.constants[m]}

    def use(self, user, target, *, loads=False):
        steps = target.split(".")
        if steps[0] != "latentwire" or left_out(user, target):
            return
        depth = max(depth for depth in range(1, len(steps) + 1) if ".".join(steps[:depth]) in self.run)
        place, rest = ".".join(steps[:depth]), steps[depth:]
        for end in range(1, depth + 1):
            if (name := ".".join(steps[:end])) not in self.loaded:
                self.loaded.add(name)
                self.pending.append((name, self.run[name], True))
        if loads:
            return
        for name in rest[:1] or [*self.definitions[place], *self.constants[place]]:
            if name in self.definitions[place] and f"{place}.{name}" not in self.found:
                self.pending.append((place, self.definitions[place][name], False))
            if name in self.definitions[place] or name in self.constants[place]:
                self.found.add(f"{place}.{name}")
            elif name in self.imports[place]:
                self.use(place, self.imports[place][name])


def spliced(text, node, new):
    lines = text.splitlines(keepends=True)
    first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()
    kept = first[: node.col_offset].decode(), last[node.end_col_offset :].decode()
    return "".join([*lines[: node.lineno - 1], kept[0] + new + kept[1], *lines[node.end_lineno :]])


def with_line(text, line, column, new):
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: line - 1], " " * column + new + "\n", *lines[line - 1 :]])


def mutants(text):
    """Every definition and constant of a source by its name, with a text in which it is another."""
    for top in ast.parse(text).body:
        if isinstance(top, (ast.Assign, ast.AnnAssign)) and top.value:
            for target in top.targets if isinstance(top, ast.Assign) else [top.target]:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        yield name.id, spliced(text, top.value, '("another", 1)')
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef)):
            continue
        start = min([top.lineno, *(decorator.lineno for decorator in top.decorator_list)])
        yield top.name, with_line(text, start, top.col_offset, "@another")
        for node in ast.walk(top):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                first = node.body[0]
                yield (
                    top.name,
                    with_line(text, first.lineno, first.col_offset, "another = 1")
                    if (first.lineno > node.lineno)
                    else spliced(text, first, "another = 1"),
                )
            if isinstance(node, ast.arguments):
                for default in [*node.defaults, *filter(None, node.kw_defaults)]:
                    yield top.name, spliced(text, default, '"another"')
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, (ast.Assign, ast.AnnAssign)) and inner.value:
                        yield top.name, spliced(text, inner.value, '"another"')


@pytest.fixture(scope="module")
def reachable(tree):
    """The programs that can reach each definition and constant."""
    bytecode, programs = Bytecode(tree.texts), {}
    for program, entries in PROGRAMS.items():
        for name in bytecode.reach(entries):
            programs.setdefault(name, []).append(program)
    return programs


FILES = sorted(Tree().files)


def test_the_oracle_reaches_most_of_the_library(tree, reachable):
    assert len(reachable) > 400
    assert {*EVALUATIONS} <= {*reachable["latentwire.evaluation.generate.Decoder"]}
    assert {*PROGRAMS} - {*reachable["latentwire.cli.set_threads"]} == {
        "check_ceiling.py", "compare_results.py", "final_validation.py", "findings.py", "follow.py", "gate.py", "gather_squad.py", "report.py",
        "require_ceiling.py", "score.py", "summarise.py", "train_reader.py", "verify.py", "write_settings.py",
    }  # fmt: skip
    counts = [name for name in tree.texts if LEFT_OUT.get(name.removeprefix("latentwire.")) != "*"]
    everything = {f"{name}.{item}" for name in counts for item, _ in mutants(tree.texts[name])}
    assert len(everything & {*reachable}) > 0.8 * len(everything)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_definition_that_a_program_can_reach_changes_its_fingerprint(tree, reachable, name):
    asked = set()
    for item, text in mutants(tree.texts[name]):
        programs = reachable.get(f"{name}.{item}", [])
        if item in asked:  # whether a program reaches it is known; other changes of it have to be seen by any
            programs = programs[:1]
        asked.add(item)
        assert tree.changed({name: text}, programs) == {*programs}, f"{name}.{item}"


def statements(path, name):
    """The statements of a program that name something, those in blocks alone; and the conditions around them."""
    tree = ast.parse(path.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == name:
            around = [node]
            while around[-1] in parents:
                around.append(parents[around[-1]])
            yield around


@pytest.mark.parametrize(
    ("name", "program"), [("record_read", "evaluate"), *(("write_provenance", path.stem) for path in SCRIPTS)]
)
def test_nothing_comes_back_from_what_is_left_out_as_a_note(name, program):
    for around in statements(ROOT / f"workflow/scripts/{program}.py", name):
        assert isinstance(around[1], ast.Call)
        assert isinstance(around[2], ast.Expr)


@pytest.mark.parametrize("place", LEFT_OUT)
def test_modules_of_what_is_left_out_set_nothing_but_their_own_names(tree, place):
    name = f"latentwire.{place}"
    for statement in ast.parse(tree.texts[name if name in tree.texts else name.rpartition(".")[0]]).body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            inside = [node for target in targets for node in ast.walk(target)]
            assert not any(isinstance(node, (ast.Attribute, ast.Subscript)) for node in inside)
        elif isinstance(statement, ast.Expr):
            assert isinstance(statement.value, ast.Constant)
        else:
            assert isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def test_words_of_an_unavailable_model_are_raised_and_nothing_else():
    for path in module.ROOT.rglob("*.py"):
        for around in statements(path, "unavailable"):
            assert isinstance(around[2], ast.Raise)


def test_only_those_programs_evaluate_arms_whose_rules_name_them():
    names = {path.name for path in SCRIPTS if ("latentwire.arms", "rebuilt_rows") in reached(path)}
    named = set(re.findall(r'variants_code\("(\w+\.py)"', RULES))
    assert {name for name in names if f"/{name} " in RULES} == named == {"evaluate.py", "measure_reconstruction.py"}


RULES = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
SCRIPT_TEXTS = {path.name: path.read_text() for path in SCRIPTS}


def test_the_rules_name_the_entries_that_are_tested():
    assert re.findall(r'=code\("(\w+\.py)", "([\w.]+)"\)', RULES) == [
        ("prepare_data.py", "latentwire.provenance.write_provenance"),
        ("final_validation.py", "latentwire.arms_table"),
        ("report.py", "latentwire.arms_table"),
    ]
    readers = [path for path in module.ROOT.rglob("*.py") if "provenance_path(" in path.read_text()]
    # Of the data alone; and the checks, which are left out.
    assert {path.stem for path in readers} == {"final_validation", "page", "provenance", "integrity"}


def test_modules_named_by_strings():
    """A string that names a module is followed where it is imported, and nowhere else."""
    named = set()
    for path in [*SCRIPTS, *module.ROOT.rglob("*.py")]:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
        named |= {
            (path.name, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"latentwire(\.\w+)+", node.value)
        }
    public = {
        ("__init__.py", f"latentwire.{name}")
        for name in (
            "adapter",
            "compression.compressor",
            "data.squad",
            "evaluation.squad_metrics",
            "training.diagnostics",
        )
    }
    runs = ("run_phase1", "run_phase2", "run_quantised", "run_bottleneck", "tuning")
    entries = {(f"{name}.py", "latentwire.cli.set_threads") for name in runs}
    # What names an answer in the store.
    measuring = [f"divergence.{name}" for name in ("forced_prompts", "DivergenceReader", "question_records")]
    entries |= {("store.py", f"latentwire.evaluation.{name}") for name in ("generate", *measuring)}
    entries |= {("store.py", f"latentwire.lm.{name}") for name in ("load_model", "load_tokenizer")}
    # The report's template, which its rule names, is found beside its module.
    models = {(f"{name}.py", "latentwire.lm") for name in ("run_phase2", "run_bottleneck")}
    assert named == public | entries | models | {("page.py", "latentwire.report")}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_program_has_a_fingerprint(script):
    assert len(fingerprint(script)) == 16
    assert (script.name, "main") in reached(script)
