"""How long a dry run takes as the sweep grows, before and after its gates have decided.

    .venv/bin/python benchmarks/dry_run.py

A sweep of R runs is R/2 code dimensions × 2 seeds. After the first dry run its planned files are made, empty but for
the decisions (all of them for Phase 2), so that the second plans what follows the gates. Nothing is computed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _machine
import numpy as np
import yaml

from latentwire.provenance import SUFFIX

BEHIND_THE_GATES = re.compile(r"/final/|/verdict/|report\.html|final_reads")


def dry_run(folder: Path, config: Path) -> tuple[float, str]:
    """Seconds and output of one dry run in ``folder``."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--cores",
        "2",
        "--snakefile",
        str(_machine.ROOT / "Snakefile"),
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--configfile", str(_machine.ROOT / "config/demo.yaml"), str(config)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, done.stdout + done.stderr


def jobs(output: str) -> int:
    """The number of planned jobs."""
    return int(re.findall(r"^total\s+(\d+)", output, flags=re.MULTILINE)[-1])


def make_planned_files(folder: Path, output: str) -> None:
    """The outputs of every planned job up to the gates, in the order of the plan."""
    decision = json.dumps({"run_phase2": True})
    for line in re.findall(r"^    output: (.*)$", output, flags=re.MULTILINE):
        for name in line.split(", "):
            if not BEHIND_THE_GATES.search(name):
                path = folder / name.removesuffix(" (update)")
                path.parent.mkdir(parents=True, exist_ok=True)
                made = path.name.removesuffix(SUFFIX)
                content = decision if made == "decision.json" else "{}"
                record = {"artefact": hashlib.sha256(content.encode()).hexdigest(), "inputs": {}}
                path.write_text(content if made == path.name else json.dumps(record))
    # One time for all, so that nothing is newer than what is made from it.
    now = time.time()
    for path in (folder / "results").rglob("*"):
        os.utime(path, (now, now))


def record(folder: Path, config: Path) -> None:
    """Let Snakemake write its records of the jobs up to the gates, as if it had run them."""
    command = [sys.executable, "-m", "snakemake", "--touch", "--forceall", "gate", "--cores", "2"]
    files = [str(_machine.ROOT / "config/demo.yaml"), str(config)]
    subprocess.run(
        [*command, "--snakefile", str(_machine.ROOT / "Snakefile"), "--configfile", *files],
        cwd=folder,
        capture_output=True,
        check=True,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[2, 10, 30, 100], help="swept runs, even numbers")
    parser.add_argument("--repeats", type=int, default=3, help="dry runs of each (default 3)")
    parser.add_argument(
        "--records", action="store_true", help="with Snakemake's records of the jobs up to the gates (takes longer)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    _machine.print_heading()
    rows = []
    for runs in arguments.runs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for needed in ("resources", "config.yaml"):
                (folder / needed).symlink_to(_machine.ROOT / needed)
            config = folder / "sweep.yaml"
            config.write_text(yaml.safe_dump({"compress_dims": list(range(2, 2 + runs // 2)), "seeds": [0, 1]}))
            row = [runs]
            for when in ("before", "after"):
                found = [dry_run(folder, config) for _ in range(arguments.repeats)]
                row += [jobs(found[-1][1]), f"{np.median([seconds for seconds, _ in found]):.1f}"]
                if when == "before":
                    make_planned_files(folder, found[-1][1])
                    if arguments.records:
                        record(folder, config)
            rows.append(row)
    header = ["runs", "jobs before the gates", "s", "jobs after the gates", "s"]
    print(_machine.table(header, rows))


if __name__ == "__main__":
    main()
