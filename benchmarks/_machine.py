"""What every page of figures needs: the machine, the code, the date, the rate of a matrix product, and a table."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def seconds(work: Callable[[], object], repeats: int, *, warmup: int = 1) -> float:
    """Median wall-clock seconds of ``work``, after ``warmup`` calls that don't count."""
    times = []
    for index in range(warmup + repeats):
        start = time.perf_counter()
        work()
        if index >= warmup:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def gemm_rate(repeats: int = 5, size: int = 4096) -> float:
    """FLOP/s of a float32 matrix product of ``size`` × ``size`` matrices at the current number of threads."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=out), repeats)


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes.

    From /proc: what getrusage says of a new process starts at its parent's.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def commit() -> str:
    """The checkout's commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def cpu_name() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_heading() -> None:
    """Print the lines above a page's tables: this command, hardware, software, commit, date and load."""
    command = " ".join([f".venv/bin/python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(
        f"`{command}`\n\n"
        f"{cpu_name()}, {os.cpu_count()} cores, {memory:.0f} GiB; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; commit {commit()}; {date.today().isoformat()}; "
        f"load average of the minute before {os.getloadavg()[0]:.1f}.\n",
        flush=True,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
