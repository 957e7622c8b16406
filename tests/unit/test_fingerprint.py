"""Fingerprints: logic that an entry uses changes them, and nothing else does."""

import ast
from pathlib import Path

import pytest

from latentwire import fingerprint as module
from latentwire.fingerprint import LEFT_OUT, fingerprint, reachable_modules

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))

ENTRY = '''"""A program."""

import argparse

from latentwire import cli


def main():
    """Do it."""
    argparse.ArgumentParser().add_argument("--size", type=int, default=3, help="how large")
    from latentwire.stage import work

    work()
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

    return Worker().go() + lazy.VALUE
'''
MODULES = {
    "__init__": "VERSION = 1\n",
    "cli": "VALUE = 1\n",
    "stage": STAGE,
    "lazy": "VALUE = 1\n",
    "types_only": "class Type: ...\n",
    "run_time": "class Type: ...\n",
    "unrelated": "VALUE = 1\n",
    "family/__init__": '"""A family."""\n',
    "family/used": '"""Used."""\n\nVALUE = 1\n',
    "family/unused": "VALUE = 1\n",
    "stopping": "from latentwire.unrelated import VALUE\n",
}


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
        module._parsed.cache_clear()  # of one process, in which no source changes but here
        return fingerprint(self.script, *entries)


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path / "latentwire")
    yield Package(tmp_path)
    module._parsed.cache_clear()


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
        ("program", "default=3", "default=4"),
    ],
)
def test_logic_changes_it(package, name, old, new):
    before = package.fingerprint()
    package.change(name, old, new)
    assert package.fingerprint() != before


@pytest.mark.parametrize("name", ["unrelated", "family/unused", "types_only", "cli", "__init__", "stopping"])
def test_what_is_not_used_or_changes_no_result_changes_nothing(package, name):
    before = package.fingerprint()
    path = package.folder / f"latentwire/{name}.py"
    path.write_text(path.read_text() + "\nCHANGED = True\n")
    assert package.fingerprint() == before


def test_a_module_that_is_left_out_counts_as_an_entry(package):
    entry = "latentwire.stopping"
    assert entry in LEFT_OUT
    before = package.fingerprint(entry)
    assert before != package.fingerprint()
    package.change("unrelated", "1", "2")  # which it imports
    assert package.fingerprint(entry) != before


def test_names_and_order_of_entries(package):
    one, other = "latentwire.lazy", "latentwire.family.unused"
    assert package.fingerprint(one, other) == package.fingerprint(other, one, one)
    assert package.fingerprint(other) != package.fingerprint("latentwire.unrelated")  # equal text, another module


def test_an_entry_that_does_not_exist(package):
    with pytest.raises(FileNotFoundError, match="no module latentwire.nowhere"):
        package.fingerprint("latentwire.nowhere")


def test_every_source_has_its_own_tree():
    """Imports that a fingerprint would not see: relative ones, and modules imported by a computed name."""
    dynamic = set()
    for path in [*SCRIPTS, *module.ROOT.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} has a relative import"
            if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                dynamic.add(path.relative_to(module.ROOT).as_posix())
    # The package's public names, left out; and the arms, which the rules name one by one.
    assert dynamic == {"__init__.py", "arms/__init__.py"}


@pytest.mark.parametrize(
    ("script", "not_reached"),
    [
        ("prepare_data", ["adapter", "arms", "compression", "training", "evaluation", "decisions", "report"]),
        ("read_embeddings", ["adapter", "arms", "data", "training", "evaluation", "decisions"]),
        ("count_tokens", ["adapter", "arms", "training", "evaluation", "decisions", "compression.pca"]),
        ("fit_pca", ["adapter", "arms", "data", "training", "evaluation", "decisions"]),
        ("train_phase1", ["arms", "evaluation", "lm", "training.phase2", "decisions"]),
        ("train_phase2", ["arms", "evaluation", "decisions.gate", "decisions.ceiling"]),
        ("evaluate", ["adapter", "training", "evaluation.squad_metrics", "evaluation.scores", "decisions.gate"]),
        ("score", ["adapter", "arms", "compression", "training", "lm", "decisions"]),
        ("require_ceiling", ["adapter", "arms", "training", "lm", "evaluation", "decisions.ceiling"]),
        ("check_ceiling", ["adapter", "arms", "training", "lm", "report"]),
        ("gate", ["adapter", "arms", "training", "lm", "report", "decisions.verdict"]),
        ("final_validation", ["adapter", "arms", "training", "lm", "report"]),
    ],
)
def test_no_stage_depends_on_what_it_does_not_use(script, not_reached):
    reached = reachable_modules([ROOT / f"workflow/scripts/{script}.py"])
    for name in not_reached:
        assert (module.ROOT / name.replace(".", "/")).is_dir() or (
            module.ROOT / f"{name.replace('.', '/')}.py"
        ).is_file(), name
        assert not [
            found for found in reached if found == f"latentwire.{name}" or found.startswith(f"latentwire.{name}.")
        ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_program_has_a_fingerprint(script):
    assert len(fingerprint(script)) == 16
    assert script.name in reachable_modules([script])
