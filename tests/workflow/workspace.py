"""Workspaces: folders in which Snakemake runs, with their own copy of the Snakefile, the rules and the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("Snakefile", "rules", "workflow", "config", "config.yaml", "profiles", "src")
NAME = "tiny"
RESULTS = f"results/{NAME}"
DIMS = (8, 4)

CPU = {"threads": 1, "mem_mb": 2000, "runtime": 10, "gpu": 0}
EXPERIMENT = {
    "experiment": NAME,
    "compress_dims": list(DIMS),
    "seeds": [0],
    "model": {"path": "./reader", "revision": None, "dtype": "float32", "system_prompt": None},
    "data": {
        "source": "demo",
        "path": None,
        "revision": None,
        # Enough questions for the twenty articles that an interval needs.
        "train_samples": 60,
        "gate_samples": 60,
        "final_samples": 60,
        "max_prompt_tokens": 256,
    },
    "phase1": {"epochs": 1, "batch_size": 16},
    "phase2": {"epochs": 1, "batch_size": 16, "calibration_batches": 2, "measure_prompts": 16},
    "evaluate": {"batch_size": 64, "max_new_tokens": 4, "identity_samples": 20},
    # An untrained reader answers nothing right.
    "ceiling": {"override": True},
    "statistics": {"resamples": 200},
    "resources": dict.fromkeys(("prepare", "pca", "phase1", "phase2", "evaluate", "reconstruction"), CPU),
}


@dataclass(frozen=True)
class Job:
    """A job that Snakemake printed."""

    rule: str
    wildcards: dict[str, str]
    outputs: tuple[str, ...]


class Plan(list[Job]):
    """The jobs that Snakemake printed, without the targets that only name files."""

    @property
    def rules(self) -> set[str]:
        """The rules."""
        return {job.rule for job in self}

    @property
    def counts(self) -> Counter[str]:
        """How many jobs of each rule."""
        return Counter(job.rule for job in self)

    def of(self, rule: str) -> list[dict[str, str]]:
        """The wildcards of a rule's jobs."""
        return [job.wildcards for job in self if job.rule == rule]


def printed_jobs(text: str) -> Plan:
    """The jobs that a dry run would run, or that a run has run, from Snakemake's output."""
    plan = Plan()
    for block in re.split(r"\n(?=(?:local)?(?:rule|checkpoint) \w+:\n)", text)[1:]:
        rule = re.match(r"(?:local)?(?:rule|checkpoint) (\w+):", block)[1]
        outputs = re.search(r"^    output: (.*)$", block, re.MULTILINE)
        wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        if outputs:
            pairs = dict(pair.split("=") for pair in wildcards[1].split(", ")) if wildcards else {}
            plan.append(Job(rule, pairs, tuple(outputs[1].split(", "))))
    return plan


def environment(folder: Path) -> dict[str, str]:
    """The environment of a workspace's processes: its own package, one thread, no network, no settings of the user."""
    own = {
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "no-cache"),
        "XDG_CONFIG_HOME": str(folder / "no-config"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")} | own


@dataclass(frozen=True)
class Workspace:
    """A folder in which Snakemake runs."""

    folder: Path

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    def run(self, *arguments: str, configfile: str | None = "tiny.yaml") -> subprocess.CompletedProcess:
        """Run Snakemake, with its standard output and error as one text."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        command += ["--configfile", configfile] if configfile else []
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def succeed(self, *arguments: str, **options) -> str:
        """Run Snakemake, which must succeed; its output."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fail(self, *arguments: str, **options) -> str:
        """Run Snakemake, which must fail; its output."""
        done = self.run(*arguments, **options)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def plan(self, *arguments: str, **options) -> Plan:
        """The jobs of a dry run."""
        text = self.succeed("-n", *arguments, **options)
        plan = printed_jobs(text)
        # Each of these says so in its own way: a plan that could not be read must not pass for an empty one.
        assert ("Nothing to be done" in text) == (not plan), text
        return plan

    def copy(self, folder: Path) -> Workspace:
        """The same files, with their times, elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Workspace(folder)

    def results(self) -> dict[str, bytes]:
        """The content of every result but logs, times and the checkpoints of interrupted runs."""
        root = self / RESULTS
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.relative_to(root).parts[0] not in ("logs", "benchmarks", "state")
        }
