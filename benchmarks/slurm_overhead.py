"""What Slurm adds: submit-to-finish of a job that does nothing and of a whole experiment, against the same locally.

    .venv/bin/python benchmarks/slurm_overhead.py --configfile config/demo.yaml

It starts a Slurm cluster of its own on this machine (as root, with Debian's slurmctld, slurmd, slurm-client, munge),
runs everything in temporary copies of the project, and prints a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _machine

sys.path.insert(0, str(_machine.ROOT / "tests" / "slurm"))
from cluster import Cluster, missing

SOURCES = ("Snakefile", "rules", "workflow", "config", "config.yaml", "profiles", "resources", "src")
NOOP = 'rule noop:\n    output: "done"\n    resources: mem_mb=500, runtime=5\n    shell: "touch {output}"\n'


SNAKEMAKE = (sys.executable, "-m", "snakemake")
LOCALLY = ("--executor", "local", "--cores", "2")
ON_SLURM = ("--profile", "profiles/slurm")


def seconds(folder: Path, cluster: Cluster, *words: str) -> float:
    """Wall-clock seconds of a command in ``folder``, which must succeed."""
    environment = os.environ | cluster.environment | {"PYTHONPATH": str(_machine.ROOT / "src")}
    start = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def noop_folder(folder: Path) -> Path:
    """A workflow of one rule that does nothing, with the project's profile."""
    folder.mkdir()
    (folder / "Snakefile").write_text(NOOP)
    shutil.copytree(_machine.ROOT / "profiles", folder / "profiles")
    return folder


def project_folder(folder: Path) -> Path:
    """A copy of the project without results."""
    folder.mkdir()
    for name in SOURCES:
        source = _machine.ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    return folder


def places(first_looks: list[int]) -> dict[str, tuple[str, ...]]:
    """Where Snakemake runs its jobs, and its options for that."""
    sooner = {
        f"Slurm, first look after {first} s": (*ON_SLURM, "--slurm-init-seconds-before-status-checks", str(first))
        for first in first_looks
    }
    return {"local": LOCALLY, "Slurm, the profile's settings": ON_SLURM} | sooner


def measured(
    cluster: Cluster, work: Path, configfile: str | None, first_looks: list[int]
) -> list[tuple[str, str, str]]:
    """What was run, where, and the seconds that it took."""
    rows: list[tuple[str, str, str]] = []

    def run(what: str, place: str, folder: Path, *words: str) -> None:
        rows.append((what, place, f"{seconds(folder, cluster, *words):.1f}"))
        print(*rows[-1], sep=", ", file=sys.stderr, flush=True)

    run("no-op", "srun alone", work, "srun", "true")
    for number, (place, options) in enumerate(places(first_looks).items()):
        run("no-op", place, noop_folder(work / f"noop{number}"), *SNAKEMAKE, *options)
        if configfile is not None:
            folder = project_folder(work / f"project{number}")
            run(configfile, place, folder, *SNAKEMAKE, *options, "--configfile", configfile)
    return sorted(rows, key=lambda row: row[0] != "no-op")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", help="experiment to run besides, relative to the repository")
    parser.add_argument("--first_looks", type=int, nargs="*", default=[10], help="other seconds to the first look")
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(f"no Slurm cluster: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, tempfile.TemporaryDirectory() as work:
        cluster = Cluster(Path(name))
        try:
            cluster.start()
            rows = measured(cluster, Path(work), arguments.configfile, arguments.first_looks)
        finally:
            cluster.stop()
    _machine.print_heading()
    print(_machine.table(("work", "where", "seconds"), rows))


if __name__ == "__main__":
    main()
