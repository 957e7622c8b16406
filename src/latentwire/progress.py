"""How far an experiment is, from the benchmark files that Snakemake writes beside every finished job.

Nothing is remembered between calls, so the answer is the same after any interruption. Standard library only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latentwire.arms_table import QUANTISED, TRAINED, UNCOMPRESSED
from latentwire.artefacts import read_json
from latentwire.errors import InputError
from latentwire.files import write_text

# Stages in the order of the experiment, and what is in the paths of their jobs; the last that matches holds.
STAGES = {
    "preparation": r"",
    "ceiling": r"^evaluation/ceiling/",
    "Phase 1": rf"^(k\d+/)?seed\d+/({'|'.join([*TRAINED['phase1'], *QUANTISED])})/",
    "gate": r"^evaluation/phase1/",
    "Phase 2": rf"^(k\d+/)?seed\d+/({'|'.join([*TRAINED['phase2'], *UNCOMPRESSED])})/",
    "reconstruction": r"/reconstruction/",
    "final validation": r"^evaluation/final/",
}
_PHASE2 = re.compile(rf"^k(\d+)/.*/({'|'.join(TRAINED['phase2'])})[/.]")


def stage_of(job: str) -> str:
    """The stage of the experiment that a job belongs to, by its path below ``benchmarks/``."""
    return [name for name, pattern in STAGES.items() if re.search(pattern, job)][-1]


def finished_jobs(root: Path) -> dict[str, float]:
    """Wall seconds of every finished job of an experiment, by its path below ``benchmarks/``."""
    folder = root / "benchmarks"
    found = {}
    for path in sorted(folder.rglob("*.tsv")):
        with path.open(encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        if rows:
            found[str(path.relative_to(folder).with_suffix(""))] = float(rows[-1]["s"])
    return found


def read_durations(path: Path) -> dict[str, float]:
    """Seconds of each job as an earlier run of the same experiment took them; empty if there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as handle:
        return {row["job"]: float(row["seconds"]) for row in csv.DictReader(handle, delimiter="\t")}


def write_durations(path: Path, finished: Mapping[str, float]) -> None:
    """Write a run's durations for later ones."""
    write_text(path, "job\tseconds\n" + "".join(f"{job}\t{s:.1f}\n" for job, s in sorted(finished.items())))


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        stage: the stage of the first job that is not finished, in the order of an earlier run's durations.
        done, jobs: finished jobs, and all that the earlier run had and this one still needs.
        minutes_left: estimate; None without an earlier run's durations.
    """

    stage: str
    done: int
    jobs: int
    minutes_left: float | None

    def __str__(self) -> str:
        if self.minutes_left is None:
            return f"{self.stage}: {self.done} jobs done; how long is left is not known (no earlier run's durations)"
        hours, minutes = divmod(max(1, round(self.minutes_left)), 60)
        left = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
        return f"{self.stage}: {self.done} of {self.jobs} jobs done, about {left} left"


def _passed(decision: Path) -> bool:
    """Whether a gate sends its code dimension past Phase 2; not if its decision can't be read, as Snakemake says."""
    try:
        return not read_json(decision, frozenset({"run_phase2"}))["run_phase2"]
    except InputError:
        return False


def _skipped(root: Path, jobs: Mapping[str, float]) -> set[str]:
    """Phase 2's jobs at the code dimensions whose gate passed."""
    passed = {path.parent.parent.name[1:] for path in root.glob("k*/gate/decision.json") if _passed(path)}
    return {job for job in jobs if (match := _PHASE2.match(job)) and match.group(1) in passed}


def progress(root: Path, durations: Mapping[str, float], *, parallel: int) -> Progress:
    """Where the experiment under ``root`` is.

    Args:
        root: ``results/<experiment>``.
        durations: seconds of each job in an earlier run.
        parallel: jobs that run at once.
    """
    finished = finished_jobs(root)
    expected = {job: s for job, s in durations.items() if job not in _skipped(root, durations)}
    waiting = {job: s for job, s in expected.items() if job not in finished}
    if not durations:
        latest = max(map(stage_of, finished), key=list(STAGES).index, default="preparation")
        return Progress(latest, len(finished), len(finished), None)
    known = [job for job in finished if job in expected]
    before = sum(expected[job] for job in known)
    # This machine against the earlier run's; a few short jobs say little about it.
    speed = sum(finished[job] for job in known) / before if before > 60 else 1.0
    stage = min(map(stage_of, waiting), key=list(STAGES).index, default="final validation")
    return Progress(stage, len(finished), len(finished) + len(waiting), speed * sum(waiting.values()) / parallel / 60)
