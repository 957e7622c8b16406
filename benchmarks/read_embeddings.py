"""Time and peak memory of reading the embedding table out of a sharded checkpoint and writing it to its own file.

    .venv/bin/python benchmarks/read_embeddings.py --model /tmp/llama-shapes

Each run is a process of its own. Its baseline is its peak memory after the same program has read the embedded
reader's small table, so that imports don't count; a table that is read once and never copied needs 1.00 times its
size above it. Memory is the largest resident set, the mapped pages of files included (Linux).
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _machine

SCRIPT = _machine.ROOT / "workflow" / "scripts" / "read_embeddings.py"
READER = _machine.ROOT / "resources" / "reader"


def read(model: str, output: Path) -> None:
    """Run the workflow's program in this process."""
    sys.argv = [str(SCRIPT), "--model", model, "--output", str(output)]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def measure(model: str) -> dict[str, float]:
    """Bytes of the table, of the baseline and of the peak above it, and seconds, of one run in this process."""
    from latentwire.table import load_table

    with tempfile.TemporaryDirectory() as folder:
        read(str(READER), Path(folder, "reader.safetensors"))
        baseline = _machine.peak_memory()
        start = time.perf_counter()
        read(model, Path(folder, "table.safetensors"))
        spent, peak = time.perf_counter() - start, _machine.peak_memory()
        table = load_table(Path(folder, "table.safetensors")).nbytes
    return {"table": table, "baseline": baseline, "above": peak - baseline, "seconds": spent}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model directory (stand_in_model.py makes one)")
    parser.add_argument("--repeats", type=int, default=5, help="runs (default 5)")
    parser.add_argument("--once", action="store_true", help="one run in this process, as JSON")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.once:
        print(json.dumps(measure(arguments.model)))
        return
    _machine.print_heading()
    command = [sys.executable, __file__, "--model", arguments.model, "--once"]
    runs = []
    for _ in range(arguments.repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    table, baseline, above, spent = (
        statistics.median(run[name] for run in runs) for name in ("table", "baseline", "above", "seconds")
    )
    header = ["table, MiB", "after imports, MiB", "peak above it, MiB", "times the table", "seconds"]
    row = [
        f"{table / 2**20:.0f}",
        f"{baseline / 2**20:.0f}",
        f"{above / 2**20:.0f}",
        f"{above / table:.3f}",
        f"{spent:.1f}",
    ]
    print(_machine.table(header, [row]))


if __name__ == "__main__":
    main()
