"""The programs that compute run where only torch, transformers, pydantic and common libraries are installed.

So does a GPU machine's image. Data preparation, the workflow and the report need more.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from preloaded import preloaded_python
from workspace import RESULTS, ROOT, SCRIPTS, Workspace, environment, printed_jobs

from latentwire.compression.counts import save_counts
from latentwire.provenance import DIGEST
from latentwire.table import save_table

GIVEN = ("torch", "transformers", "pydantic", "numpy", "pandas", "pyarrow", "scikit-learn", "safetensors", "tqdm")
MISSING = ("datasets", "jsonschema", "snakemake", "peft", "gguf", "matplotlib", "faiss")

pytestmark = pytest.mark.workflow


def with_requirements(names: tuple[str, ...]) -> dict[str, object]:
    """Installed distributions by name: these, and what they require on this machine."""
    found, pending = {}, list(names)
    while pending:
        name = pending.pop()
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # required elsewhere, such as CUDA's libraries
            continue
        key = installed.metadata["Name"].lower().replace("_", "-")
        if key not in found:
            found[key] = installed
            wanted = map(Requirement, installed.requires or ())
            pending += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees these distributions alone; Snakemake's own processes stay with this one."""
    folder = tmp_path_factory.mktemp("bare")
    packages = folder / "packages"
    packages.mkdir()
    for installed in with_requirements(GIVEN).values():
        for top in {Path(str(file)).parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(installed.locate_file(top))))
    python = folder / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *snakemake*--target-jobs*) exec {sys.executable} "$@";; esac\n'
        f'PYTHONPATH="$PYTHONPATH:{packages}" exec {sys.executable} -S "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


@pytest.mark.parametrize("module", MISSING)
def test_what_the_programs_have_to_do_without_is_not_there(bare_python, module):
    done = subprocess.run([bare_python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr


def test_a_product_quantiser_cannot_be_fitted_there_and_says_so_in_a_line(bare_python: Path, tmp_path: Path):
    save_table(tmp_path / "table.safetensors", torch.randn(300, 8))
    counts_V = torch.ones(300, dtype=torch.int64)
    save_counts(tmp_path / "counts.safetensors", pca=counts_V, train=counts_V.clone())
    arguments = "--codec pq4 --table table.safetensors --counts counts.safetensors --threads 1 --output pq4"
    done = subprocess.run(
        [bare_python, SCRIPTS / "fit_codec.py", *arguments.split()],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (said,) = done.stderr.splitlines()
    assert done.returncode == 1 and said.startswith("fit_codec.py: error: product quantisers (pq*) are fitted with")
    assert "faiss-cpu, which is not installed here: pip install faiss-cpu, fit them where it is" in said
    assert not (tmp_path / "pq4").exists()


@pytest.mark.slow
def test_a_second_run_from_nothing_has_the_same_bytes_in_a_folder_of_any_name_beside_another_experiment(
    bare_python: Path, fresh: Workspace, finished: Workspace, tmp_path: Path
):
    workspace = fresh.copy(tmp_path / "it's $HOME; a {k} & b [0-9]*")
    other = workspace / "results/other"
    shutil.copytree(finished / RESULTS, other)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in other.rglob("*")}
    workspace.succeed(f"{RESULTS}/data/manifest.json")
    start = "import sys; sys.executable = sys.argv.pop(1); from snakemake.cli import main; main()"
    given = ("final", "--cores", "2", "--configfile", "tiny.yaml")
    done = subprocess.run(
        [sys.executable, "-c", start, preloaded_python(str(bare_python)), *given],
        cwd=workspace.folder, env=environment(workspace.folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert printed_jobs(workspace.succeed()).rules == {"report"}
    expected, found = finished.results(), workspace.results()
    assert expected.keys() == found.keys()
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in other.rglob("*")} == before
    for name, content in expected.items():
        if name.endswith(".provenance.json") and not name.startswith("data/"):
            theirs, ours = json.loads(content), json.loads(found[name])
            assert ours["versions"] == theirs["versions"] | {"datasets": None, "faiss-cpu": None}
            others = {"versions": None, DIGEST: None}  # the digest is of the versions, too
            assert ours | others == theirs | others
        else:
            assert found[name] == content, name
    assert os.path.getsize(workspace / f"{RESULTS}/verdict/verdict.md") > 0
