"""Each program on a full disk, beside files that are in its way, and in too little memory.

It has to end in one line, leave no temporary file, and do its work when it is called again.
"""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiment import Ended, Experiment, Files, Job, call, leftovers
from ledger import WRONG, Turn
from workspace import ROOT, SCRIPTS, Workspace, environment

OUTPUTS = ("--output", "--output_divergence", "--spectrum", "--evidence", "--state", "--answers", "--final_reads")
ELSEWHERE = "elsewhere"
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Limited:
    """A limit that a program gets when it has been imported.

    Args:
        kind: of the resource.
        most: bytes; of memory, beyond what is used then.
    """

    kind: int
    most: int

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method`` as it is."""
        used = 0
        if self.kind == resource.RLIMIT_AS:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(self.kind, (used + self.most, used + self.most))
        return method


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A small file system of its own; gives whether this machine lets us have one."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def writing_to(folder: str, job: Job) -> Job:
    """A job whose outputs are elsewhere."""
    outputs = (*OUTPUTS, *{"gate.py": ("--decision",), "evaluate.py": ("--divergence",)}.get(job.script, ()))
    words = list(job.arguments)
    for number, word in enumerate(words[:-1]):
        if word in outputs:
            words[number + 1] = f"{folder}/{words[number + 1]}"
    return Job(job.script, tuple(words))


def outcome_of(job: Job, ended: Ended) -> str:
    """How a program took a fault."""
    if ended.crashed:
        return ended.crashed
    if ended.code == 0:
        return "had enough"
    return "refused" if ended.last.startswith(f"{job.script}: error: ") else "unclear"


def on_a_full_disk(workspace: Workspace, job: Job, chosen: random.Random) -> Ended | None:
    with mounted(workspace / ELSEWHERE, f"size={chosen.choice((4, 16, 64))}k") as allowed:
        return call(workspace, writing_to(ELSEWHERE, job)) if allowed else None


def on_a_read_only_file_system(workspace: Workspace, job: Job, chosen: random.Random) -> Ended | None:
    with mounted(workspace / ELSEWHERE, "ro") as allowed:
        return call(workspace, writing_to(ELSEWHERE, job)) if allowed else None


def with_a_file_size_limit(workspace: Workspace, job: Job, chosen: random.Random) -> Ended | None:
    return call(workspace, job, Limited(resource.RLIMIT_FSIZE, chosen.randrange(4096, 65536)))


def with_something_in_its_outputs_place(workspace: Workspace, job: Job, chosen: random.Random) -> Ended | None:
    """A folder where a file should be, or a file where a folder should be."""
    if "--output" not in job.arguments:
        return None
    output = workspace / job.arguments[job.arguments.index("--output") + 1]
    kept = output.with_name(f"{output.name}-kept")
    is_folder = output.is_dir()
    output.rename(kept)
    if is_folder:
        output.write_text("")
    else:
        output.mkdir()
    try:
        return call(workspace, job)
    finally:
        shutil.rmtree(output) if output.is_dir() else output.unlink()
        kept.rename(output)


def with_little_memory(workspace: Workspace, job: Job, chosen: random.Random) -> Ended | None:
    return call(workspace, job, Limited(resource.RLIMIT_AS, int(2 ** chosen.uniform(16, 28))))


def with_little_memory_from_its_start(workspace: Workspace, job: Job, chosen: random.Random) -> Ended | None:
    """As ``ulimit -v`` does."""
    most = int(2 ** chosen.uniform(27, 33))
    done = subprocess.run(
        [sys.executable, SCRIPTS / job.script, *job.arguments],
        cwd=workspace.folder,
        env=environment(workspace.folder) | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
        timeout=PATIENCE_SECONDS,
    )
    return Ended(done.returncode, f"under {most >> 20} MB\n{done.stdout}")


FAULTS = (
    on_a_full_disk,
    on_a_read_only_file_system,
    with_a_file_size_limit,
    with_something_in_its_outputs_place,
    with_little_memory,
    with_little_memory_from_its_start,
)


def trial(
    workspace: Workspace, files: Files, job: Job, fault: Callable[..., Ended | None], label: str, turn: Turn
) -> None:
    """One fault of one program, and its next call."""
    kind = fault.__name__.replace("_", " ")
    ended = fault(workspace, job, turn.generator(label))
    if ended is None:
        return
    outcome, detail = outcome_of(job, ended), ended.text
    hidden = [name for name in leftovers(workspace.folder) if ".snakemake" not in name and "/state/" not in name]
    if outcome in ("refused", "had enough"):
        again = call(workspace, job)
        changed = files.changed()
        if hidden:
            outcome, detail = "leftover", f"{hidden} {detail}"
        elif again.code != 0 or changed:
            outcome, detail = "lost", f"{changed} {again.text}"
    turn.add(label, kind, outcome, detail if outcome in WRONG else "")
    files.restore()


def campaign(experiment: Experiment, turn: Turn) -> None:
    """Round after round, every program with every fault; in each with another of its calls."""
    workspace = experiment.copy("faults")
    for job in experiment.jobs:
        call(workspace, job)
    # A store may have gained an answer; what is made of them has to be the same.
    files = Files(workspace, ("logs", "benchmarks", "state", "answers"))
    calls: dict[str, list[Job]] = {}
    for job in experiment.jobs:
        calls.setdefault(job.script, []).append(job)
    number = 0
    while turn.going:
        for own in calls.values():
            for fault in FAULTS:
                job = own[number % len(own)]
                label = f"{fault.__name__.replace('_', ' ')} {number} | {job.name}"
                if turn.going and not turn.has(label):
                    trial(workspace, files, job, fault, label, turn)
        number += 1
