"""Snakemake on the cluster: ``snakemake --profile slurm`` in a workspace, as a process that tests can watch and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster, wait_until
from workspace import EXPERIMENT, Workspace, environment

# Another number for everything, so that a job shows whose resources it got; more memory than any of them takes.
STAGES = {
    "prepare": {"threads": 1, "mem_mb": 2100, "runtime": 11, "gpu": 0},
    "compression": {"threads": 2, "mem_mb": 2200, "runtime": 12, "gpu": 0},
    "phase1": {"threads": 2, "mem_mb": 2300, "runtime": 13, "gpu": 0},
    "phase2": {"threads": 1, "mem_mb": 2400, "runtime": 14, "gpu": 2},
    "evaluate": {"threads": 1, "mem_mb": 2500, "runtime": 15, "gpu": 1},
    "reconstruction": {"threads": 1, "mem_mb": 2600, "runtime": 16, "gpu": 0},
}
ONE_K = EXPERIMENT | {
    "compress_dims": [8],
    # The cluster's GPUs are scheduled, but nothing computes on them.
    "device": "cpu",
    "resources": STAGES,
}

# Looking at the jobs every second makes tests short; everything else is the profile's. The plugin's own looks grow rarer
# by 10 s until a job has ended, and no option changes that.
SNAKEMAKE = """
import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def a_second(_):
    await asyncio.sleep(1)


RemoteExecutor.sleep = a_second
main()
"""
QUICK = ("--latency-wait", "5", "--jobs", "6")


def rule_of(job: dict[str, str]) -> str:
    """The rule of a Slurm job; the plugin writes it into the job's comment."""
    return job["Comment"].removeprefix("rule_").split("_wildcards_")[0]


@dataclass
class Run:
    """A running ``snakemake --profile slurm``."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path
    cluster: Cluster
    submitted_before: int

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    @property
    def jobs(self) -> list[dict[str, str]]:
        """The Slurm jobs submitted from its folder since it started."""
        return [
            job
            for job in self.cluster.jobs()
            if job["WorkDir"] == str(self.folder) and int(job["JobId"]) > self.submitted_before
        ]

    def of(self, rule: str) -> list[dict[str, str]]:
        """Those of one rule."""
        return [job for job in self.jobs if rule_of(job) == rule]

    def wait_for_job(self, rule: str, state: str, *, count: int = 1, seconds: float = 90) -> dict[str, str]:
        """Wait until ``count`` jobs of a rule are in ``state``; the newest of them."""

        def found() -> list[dict[str, str]]:
            assert self.process.poll() is None or len(self.of(rule)) >= count, self.output
            return [job for job in self.of(rule) if job["JobState"] == state]

        wait_until(lambda: len(found()) >= count, f"{count} {rule} {state}\n{self.output}", seconds)
        return found()[-1]

    def wait(self, seconds: float = 300) -> int:
        """Its exit status."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done within {seconds} s:\n{self.output}") from None

    def succeed(self, seconds: float = 300) -> str:
        """Wait for its success; its output."""
        assert self.wait(seconds) == 0, self.output
        return self.output

    def kill(self) -> None:
        """``kill -9``, without a chance to tidy up."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """End it and its jobs, if they have not ended."""
        if self.process.poll() is None:
            self.kill()
        for job in self.jobs:
            self.cluster.command("scancel", job["JobId"], check=False)


def start(cluster: Cluster, workspace: Workspace, *arguments: str) -> Run:
    """Start ``snakemake --profile slurm`` in a workspace."""
    jobs = cluster.jobs()
    log = workspace / f"snakemake-{len(list(workspace.folder.glob('snakemake-*.log')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # It must not outlive a test run that is killed: told to end, it would wait for jobs of a cluster that is gone.
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", SNAKEMAKE, "--profile", "slurm", *arguments]
            + [*QUICK, "--configfile", "tiny.yaml"],
            cwd=workspace.folder,
            env=environment(workspace.folder) | cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Run(process, workspace.folder, log, cluster, int(jobs[-1]["JobId"]) if jobs else 0)
