"""The library imports what pyproject.toml declares for it; tools have one version everywhere."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src/latentwire"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Packages that are imported under another name.
MODULES = {"faiss-cpu": "faiss", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# Declared and not imported by the library itself: transformers renders chat templates with it.
NOT_IMPORTED = {"jinja2"}
# Of an extra, and of the library's own dependencies too.
SHARED = {"yaml"}
# Folders that need an extra.
OF_EXTRAS = {"report": "report", "readers": "real"}


def modules(requirements: list[str]) -> set[str]:
    """The modules of requirements, without those on this project's own extras."""
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements} - {PROJECT["name"]}
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def imported(source: Path) -> set[str]:
    """The top-level names of every other package that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"latentwire"}


def test_every_import_of_the_library_is_declared_and_nothing_else_is():
    declared = modules(PROJECT["dependencies"])
    used = set()
    for source in sorted(LIBRARY.rglob("*.py")):
        folder = source.relative_to(LIBRARY).parts[0]
        names = imported(source)
        if folder in OF_EXTRAS:
            assert names <= declared | modules(EXTRAS[OF_EXTRAS[folder]]), source
        else:
            assert names <= declared, source
            used |= names
    assert declared - used == NOT_IMPORTED


@pytest.mark.parametrize("extra", ["report", "workflow", "real"])
def test_the_dev_extra_holds_the_others(extra: str):
    def requirements(name: str) -> set[str]:
        own = set(EXTRAS[name])
        inner = [re.match(r"latentwire\[(.+)\]$", requirement) for requirement in own]
        return own.union(*(requirements(part) for found in inner if found for part in found[1].split(",")))

    assert set(EXTRAS[extra]) <= requirements("dev")


@pytest.mark.slow  # a process that imports torch and transformers anew
def test_the_public_names_import_without_the_extras():
    extras = modules([requirement for extra in EXTRAS.values() for requirement in extra])
    assert {"snakemake", "sklearn", "matplotlib"} <= extras
    code = (
        "import sys\n"
        f"sys.modules |= dict.fromkeys({sorted(extras - SHARED)!r})\n"  # None: no such module
        "import latentwire\n"
        "print(all(callable(getattr(latentwire, name)) for name in latentwire.__all__))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_the_lock_pins_every_declared_package():
    locked = {
        re.sub("[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    declared = {
        re.sub("[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
        for requirement in (*PROJECT["dependencies"], *(name for extra in EXTRAS.values() for name in extra))
    }
    assert declared - locked == {PROJECT["name"]}


def test_hooks_have_the_versions_of_the_lock():
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (hooks,) = (repo["hooks"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"])
    pinned = {requirement for hook in hooks for requirement in hook["additional_dependencies"]}
    assert {requirement for requirement in pinned if not requirement.startswith("codespell==")} <= set(locked)
    assert all("==" in requirement for requirement in pinned)
