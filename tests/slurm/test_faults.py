"""What goes wrong on clusters: each fault is survived, and the adapter has the bytes of an undisturbed local run."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, wait_until
from runs import ONE_K, STAGES, Run, start
from workspace import RESULTS, ROOT, Workspace

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TARGET = f"{RESULTS}/k8/seed0/phase1/adapter.safetensors"
LOG = f"{RESULTS}/logs/k8/seed0/phase1/adapter.safetensors.log"
EPOCHS = 60
STEPS = 4 * EPOCHS
# A training that lasts, but computes little: every step sleeps, and so does what it keeps when it is told to stop.
STEP_SECONDS = 0.1
STOP_SECONDS = 3
# While this file exists, a step takes a second: the training can't end before the test has done its part.
HELD = "held"
# The step at which it was told to stop, written when its state was kept.
KEPT_AT_STOP = "kept-at-stop"
CHECKPOINT_SECONDS = 2
# Behind the training loop: the same loop, slower, with a checkpoint every few seconds.
SLOW = """

import time
from pathlib import Path

from latentwire.resuming import checkpoint

checkpoint.INTERVAL_SECONDS = {checkpoint_seconds}
_train = train_adapter


def train_adapter(adapter, loss_at, *, checkpoints, **options):
    check = checkpoints.check

    def slow_loss_at(step):
        time.sleep(1 if Path("{held}").exists() else {step_seconds})
        return loss_at(step)

    def slow_check(keep):
        def slow_keep():
            time.sleep({stop_seconds})
            keep()
            Path("{kept}").write_text(str(keep.args[0]))

        check(slow_keep)

    checkpoints.check = slow_check
    return _train(adapter, slow_loss_at, checkpoints=checkpoints, **options)
"""


def settings(epochs: int = EPOCHS, **resources: int) -> str:
    """The experiment with a longer Phase 1, and other resources for it."""
    phase1 = STAGES["phase1"] | {"threads": 1} | resources
    return yaml.safe_dump(
        ONE_K | {"phase1": ONE_K["phase1"] | {"epochs": epochs}, "resources": STAGES | {"phase1": phase1}}
    )


@dataclass
class Training:
    """Phase 1 of a workspace, on the cluster."""

    cluster: Cluster
    workspace: Workspace
    runs: list[Run] = field(default_factory=list)

    def start(self, *arguments: str) -> Run:
        """Ask for the adapter."""
        self.runs.append(start(self.cluster, self.workspace, TARGET, *arguments))
        return self.runs[-1]

    def end(self) -> None:
        """End what a failed test has left."""
        for run in self.runs:
            run.end()

    @property
    def log(self) -> str:
        """The log of the program's last attempt."""
        return (self.workspace / LOG).read_text() if (self.workspace / LOG).exists() else ""

    @property
    def checkpoints(self) -> list[Path]:
        """Its checkpoints, oldest first."""
        return sorted(self.workspace.folder.glob(f"{RESULTS}/state/*/step*.safetensors"))

    def wait_for_checkpoint(self, run: Run) -> None:
        """Wait until it is well under way."""
        wait_until(lambda: self.checkpoints or run.process.poll(), "a checkpoint", 240)
        assert self.checkpoints, run.output + self.log

    @property
    def kept_at_stop(self) -> int:
        """The step at which it was told to stop and had the time to keep its state."""
        return int((self.workspace / KEPT_AT_STOP).read_text())

    @property
    def continued_at(self) -> int:
        """The step that the last attempt began with."""
        found = re.search(r"phase 1: continuing at step (\d+) of \d+", self.log)
        assert found, self.log
        return int(found[1])


@pytest.fixture
def training(cluster: Cluster, prepared: Workspace, tmp_path: Path) -> Iterator[Training]:
    """A slow Phase 1 in the test's own workspace."""
    made = slow_training(cluster, prepared, tmp_path, STEP_SECONDS, settings())
    yield made
    made.end()


def slow_training(
    cluster: Cluster, prepared: Workspace, folder: Path, step_seconds: float, configuration: str
) -> Training:
    """A copy of the prepared experiment with ``step_seconds`` more a step and ``STOP_SECONDS`` more at a stop."""
    workspace = prepared.copy(folder)
    (workspace / "tiny.yaml").write_text(configuration)
    loop = workspace / "src/latentwire/training/loop.py"
    with loop.open("a") as source:
        source.write(
            SLOW.format(
                step_seconds=step_seconds,
                stop_seconds=STOP_SECONDS,
                checkpoint_seconds=CHECKPOINT_SECONDS,
                kept=KEPT_AT_STOP,
                held=HELD,
            )
        )
    return Training(cluster, workspace)


@pytest.fixture(scope="session")
def expected(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """The files beside an adapter that was trained for so many epochs, locally and undisturbed."""
    done: dict[int, dict[str, bytes]] = {}

    def files(epochs: int = EPOCHS) -> dict[str, bytes]:
        if epochs not in done:
            workspace = prepared.copy(tmp_path_factory.mktemp("expected"))
            (workspace / "tiny.yaml").write_text(settings(epochs))
            workspace.succeed(TARGET)
            done[epochs] = trained(workspace)
        return done[epochs]

    return files


def trained(workspace: Workspace) -> dict[str, bytes]:
    """The files beside the adapter."""
    folder = (workspace / TARGET).parent
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def in_time(
    cluster: Cluster, prepared: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Training, Run]]:
    """A training that needs more than its first two minutes, of which it keeps half a minute for its start and stop."""
    folder = tmp_path_factory.mktemp("in-time")
    training = slow_training(cluster, prepared, folder, 120 / STEPS, settings(runtime=2))
    yield training, training.start()
    training.end()


# What a stage needs beyond its first attempt, of which it has a minute and 2200 MB.
HANG = "import pathlib, time\nif not pathlib.Path('hung').exists():\n    pathlib.Path('hung').touch()\n    time.sleep(600)\n"
SPREAD = "import time\nmemory = bytearray(b'1') * (2500 << 20)\ntime.sleep(5)\ndel memory\n"


@pytest.fixture(scope="module")
def exhausted(cluster: Cluster, prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """PCA: reading the table takes more memory than its first attempt has, and the fit more time."""
    workspace = prepared.copy(tmp_path_factory.mktemp("exhausted"))
    configuration = yaml.safe_load((workspace / "tiny.yaml").read_text())
    configuration["resources"]["compression"]["runtime"] = 1
    (workspace / "tiny.yaml").write_text(yaml.safe_dump(configuration))
    for name, more in (("read_embeddings.py", SPREAD), ("fit_pca.py", HANG)):
        program = workspace / f"workflow/scripts/{name}"
        program.write_text(program.read_text().replace("import argparse\n", f"{more}import argparse\n", 1))
    run = start(cluster, workspace, "pca")
    yield run
    run.end()


@pytest.fixture(scope="module", autouse=True)
def _limits_pass_while_other_tests_run(in_time: tuple[Training, Run], exhausted: Run) -> None:
    """Slurm's shortest limit is a minute: what waits for it starts before everything else."""


def test_a_preempted_job_is_requeued_and_continues_under_its_own_number(training: Training, expected):
    run = training.start("--default-resources", "slurm_partition='idle'")
    training.wait_for_checkpoint(run)
    job = run.wait_for_job("train_phase1", "RUNNING")["JobId"]
    training.cluster.command("sbatch", "--partition=urgent", "--output=/dev/null", "--wrap=true")
    run.wait_for_job("train_phase1", "PENDING")
    # Slurm would hold it back for two minutes.
    training.cluster.command("scontrol", "update", f"JobId={job}", "StartTime=now")
    run.succeed()
    assert [(job["JobState"], job["Restarts"]) for job in run.of("train_phase1")] == [("COMPLETED", "1")]
    assert "Trying to restart" not in run.output
    assert training.continued_at == training.kept_at_stop
    assert trained(training.workspace) == expected()


def test_a_job_that_somebody_cancels_is_noticed_and_tried_again(training: Training, expected):
    run = training.start()
    training.wait_for_checkpoint(run)
    job = run.wait_for_job("train_phase1", "RUNNING")["JobId"]
    cancelled = time.monotonic()
    training.cluster.command("scancel", job)
    wait_until(lambda: len(run.of("train_phase1")) == 2, f"another attempt\n{run.output}", 240)
    assert time.monotonic() - cancelled < 240
    run.succeed()
    first, second = run.of("train_phase1")
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    # More time and memory, for whatever ended the first one.
    assert (first["TimeLimit"], first["MinMemoryNode"]) == ("00:13:00", "2300M")
    assert (second["TimeLimit"], second["MinMemoryNode"]) == ("00:26:00", "4600M")
    assert "received SIGTERM; the state is kept" in run.output
    assert training.continued_at == training.kept_at_stop
    assert trained(training.workspace) == expected()


def test_after_a_kill_of_snakemake_another_one_continues_and_the_orphan_gives_way(training: Training, expected):
    held = training.workspace / HELD
    held.touch()
    first = training.start()
    training.wait_for_checkpoint(first)
    # Two at once are refused.
    second = training.start()
    assert second.wait() != 0
    assert "cannot be locked" in second.output and "--unlock" in second.output
    first.kill()
    training.workspace.succeed("--unlock")
    again = training.start()
    states = lambda: [job["JobState"] for job in first.of("train_phase1")]  # noqa: E731
    wait_until(lambda: states() == ["FAILED", "RUNNING"], "the orphan has given way", 120)
    held.unlink()
    again.succeed()
    assert states() == ["FAILED", "COMPLETED"]
    assert 0 < training.continued_at < STEPS
    assert trained(training.workspace) == expected()


def test_what_a_killed_snakemake_left_waiting_is_cancelled_as_the_documentation_says(
    cluster: Cluster, tiny: Workspace, tmp_path: Path
):
    workspace = tiny.copy(tmp_path)
    table = f"{RESULTS}/model/embeddings.safetensors"
    first = start(cluster, workspace, table, "--default-resources", "slurm_extra='--hold'")
    first.wait_for_job("read_embeddings", "PENDING")
    first.kill()
    (command,) = re.findall(r"^squeue .* scancel", (ROOT / "docs/hpc.md").read_text(), re.MULTILINE)
    environment = os.environ | cluster.environment
    subprocess.run(["bash", "-c", command], cwd=workspace.folder, env=environment, check=True)
    assert [job["JobState"] for job in first.jobs] == ["CANCELLED"]
    workspace.succeed("--unlock")
    start(cluster, workspace, table).succeed()
    assert (workspace / table).exists()


def test_a_training_stops_before_its_limit_and_goes_on_with_more_time(in_time: tuple[Training, Run], expected):
    training, run = in_time
    run.succeed()
    first, second = run.of("train_phase1")
    assert (first["JobState"], first["TimeLimit"]) == ("FAILED", "00:02:00")
    assert (second["JobState"], second["TimeLimit"]) == ("COMPLETED", "00:04:00")
    assert "the job's time limit of 2 minutes is close; the state is kept" in run.output
    assert STEPS / 4 < training.continued_at < STEPS
    assert trained(training.workspace) == expected()


def test_a_stage_that_runs_out_of_memory_gets_more(exhausted: Run):
    exhausted.succeed()
    first, second = exhausted.of("read_embeddings")
    assert (first["JobState"], first["MinMemoryNode"]) == ("FAILED", "2200M")
    assert (second["JobState"], second["MinMemoryNode"]) == ("COMPLETED", "4400M")
    assert "Exceeded job memory limit" in Path(first["StdOut"]).read_text()


def test_a_stage_that_runs_out_of_time_gets_more(exhausted: Run):
    exhausted.succeed()
    first, second = exhausted.of("fit_pca")
    assert (first["JobState"], first["TimeLimit"]) == ("TIMEOUT", "00:01:00")
    assert (second["JobState"], second["TimeLimit"]) == ("COMPLETED", "00:02:00")


def test_a_drained_node_gets_no_job_and_a_failed_nodes_job_continues_elsewhere(training: Training, expected):
    cluster = training.cluster
    cluster.command("scontrol", "update", "NodeName=c1", "State=DRAIN", "Reason=test")
    run = training.start()
    training.wait_for_checkpoint(run)
    assert run.wait_for_job("train_phase1", "RUNNING")["NodeList"] == "c2"
    cluster.command("scontrol", "update", "NodeName=c1", "State=RESUME")
    cluster.fail_node("c2")
    try:
        job = run.wait_for_job("train_phase1", "PENDING", seconds=120)
        cluster.command("scontrol", "update", f"JobId={job['JobId']}", "StartTime=now")
        run.succeed()
    finally:
        cluster.start_node("c2")
        cluster.wait_for_nodes("idle", "mixed", "allocated")
    assert [(job["JobState"], job["NodeList"]) for job in run.of("train_phase1")] == [("COMPLETED", "c1")]
    assert 0 < training.continued_at < STEPS
    assert trained(training.workspace) == expected()
