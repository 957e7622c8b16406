"""A real Slurm cluster on this machine: munged, slurmctld and one slurmd a virtual node, all in one folder.

Nodes ``c1`` and ``c2`` make the partition ``cpu``; ``g1``, with four stand-in GPUs, makes the partition ``gpu``. The
GPUs are scheduled as real ones are; nothing computes on them. ``p1``, with one CPU, is in ``idle`` and in ``urgent``,
whose jobs preempt those of ``idle``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "setpriv")
NODES = ("c1", "c2", "g1", "p1")
GPUS = 4

CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# Notes the GPUs that a job got; the controller forgets them when it ends.
Prolog={folder}/bin/prolog
# A finished job stays visible to squeue and scontrol for as long as the tests run.
MinJobAge=7200
# Between SIGTERM and SIGKILL at a time limit or a requeue.
KillWait=20
# A node that does not answer for so long has failed.
SlurmdTimeout=10
ReturnToService=2
# As at sites that requeue a job only if it asks for it.
JobRequeue=0
# A job that takes more memory than it asked for is killed: the one way without control groups. (It ends as FAILED.)
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=c[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={c1},{c2} CPUs=2 RealMemory=16000
NodeName=g1 NodeHostname={host} NodeAddr=127.0.0.1 Port={g1} CPUs=4 RealMemory=16000 Gres=gpu:{gpus}
NodeName=p1 NodeHostname={host} NodeAddr=127.0.0.1 Port={p1} CPUs=1 RealMemory=16000
PartitionName=DEFAULT MaxTime=1-0 DefaultTime=10
PartitionName=cpu Nodes=c[1-2] Default=YES
PartitionName=gpu Nodes=g1
PartitionName=idle Nodes=p1 PriorityTier=1
PartitionName=urgent Nodes=p1 PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "a Slurm cluster is started by root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
    return None


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30, every: float = 0.2) -> None:
    """Wait for ``condition`` to become true; an ``AssertionError`` names ``what`` did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(every)


@contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nothing listens on; held until the block ends."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        yield [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class Cluster:
    """The cluster of one folder."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What processes need in their environment to use this cluster and no other."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def command(self, *words: str, check: bool = True) -> str:
        """The output of a Slurm command."""
        done = subprocess.run(
            words, env=os.environ | self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Write the configuration and start the daemons; returns when all nodes are idle."""
        self._configure()
        munge = [f"--{name}={self.folder}/munge.{suffix}" for name, suffix in (
            ("socket", "socket"), ("key-file", "key"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed")
        )]  # fmt: skip
        self._daemon("munged", "munged", "--foreground", *munge)
        wait_until((self.folder / "munge.socket").exists, "munged answers")
        self._daemon("slurmctld", "slurmctld", "-D")
        wait_until(lambda: "UP" in self.command("scontrol", "ping", check=False), "slurmctld answers")
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes("idle")

    def _configure(self) -> None:
        self.folder.chmod(0o755)  # munge's socket must be in a folder that everyone can enter
        for name in ("state", "bin"):
            (self.folder / name).mkdir()
        with _free_ports(len(NODES) + 1) as (controller, *ports):
            text = CONFIGURATION.format(
                folder=self.folder,
                host=socket.gethostname().split(".")[0],
                controller_port=controller,
                gpus=GPUS,
                **dict(zip(NODES, ports, strict=True)),
            )
        (self.folder / "slurm.conf").write_text(text)
        # Slurm wants character devices; this number is /dev/null's.
        for number in range(GPUS):
            os.mknod(self.folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(f"NodeName=g1 Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._script("prolog", f'echo "$SLURM_JOB_ID $SLURM_JOB_GPUS" >> {self.folder}/granted')
        # Inside a job the executor plugin takes every SLURM_ variable away from srun, this cluster's name included.
        self._script("srun", f'SLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"')

    def _script(self, name: str, command: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)

    def _daemon(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                # Even a killed test run takes its daemons down.
                ("setpriv", "--pdeathsig", "TERM", *words),
                env=os.environ | self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def gpus_of(self, job: dict[str, str]) -> list[str]:
        """The numbers of the GPUs that a job got."""
        granted = dict(line.partition(" ")[::2] for line in (self.folder / "granted").read_text().splitlines())
        return [number for number in granted[job["JobId"]].split(",") if number]

    def start_node(self, node: str) -> None:
        """Start the node's slurmd."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def wait_for_nodes(self, *states: str, seconds: float = 60) -> None:
        """Wait until every node is in one of ``states``."""
        wait_until(
            lambda: set(self.command("sinfo", "-h", "-N", "-o", "%T").split()) <= set(states),
            f"nodes {states}",
            seconds,
        )

    def fail_node(self, node: str) -> None:
        """What a power cut does: the node's slurmd and all its jobs are gone at once."""
        running = [job["JobId"] for job in self.jobs() if job["NodeList"] == node and job["JobState"] == "RUNNING"]
        steps = [step for step in psutil.process_iter() if self._is_step_of(step, running)]
        tasks = [task for step in steps for task in step.children(recursive=True)]
        self.daemons.pop(node).kill()
        for process in steps + tasks:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _is_step_of(self, process: psutil.Process, jobs: list[str]) -> bool:
        """Whether a process is this cluster's slurmstepd of one of ``jobs``."""
        with suppress(psutil.Error, OSError):
            name = " ".join(process.cmdline())
            # Its title is written over the begin of its environment, so psutil does not read it.
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            ours = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode() in variables
            return ours and any(name.startswith(f"slurmstepd: [{job}.") for job in jobs)
        return False

    def stop(self) -> None:
        """Cancel all jobs and take every daemon down."""
        if "slurmctld" in self.daemons:
            self.command("scancel", "--user=root", "--signal=KILL", "--full", check=False)
            self.command("scancel", "--user=root", check=False)
            with suppress(AssertionError):
                wait_until(lambda: not self.command("squeue", "--noheader", check=False), "no job is left", 15)
        for name in reversed(self.daemons):
            self.daemons[name].terminate()
        for process in self.daemons.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def jobs(self) -> list[dict[str, str]]:
        """Every job the controller remembers, in order of submission, as ``scontrol`` describes it."""
        text = self.command("scontrol", "--oneliner", "show", "jobs")
        rows = [line for line in text.splitlines() if line.startswith("JobId=")]
        found = [dict(pair.split("=", 1) for pair in row.split() if "=" in pair) for row in rows]
        return sorted(found, key=lambda job: int(job["JobId"]))


if __name__ == "__main__":
    cluster = Cluster(Path(sys.argv[1]))
    cluster.start()
    print(cluster.environment)
    signal.pause()
