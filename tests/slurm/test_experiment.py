"""The whole experiment as Slurm jobs: the local run's bytes, from jobs that had what they declare and nothing more."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from cluster import Cluster
from runs import ONE_K, STAGES, Run, rule_of, start
from workspace import RESULTS, Workspace, write_f1

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STAGE_OF = {
    "prepare_data": "prepare",
    "count_tokens": "prepare",
    "read_embeddings": "compression",
    "fit_pca": "compression",
    "fit_random_projection": "compression",
    "fit_codec": "compression",
    "train_phase1": "phase1",
    "train_phase2": "phase2",
    "evaluate": "evaluate",
    "measure_reconstruction": "reconstruction",
}
CHECKPOINTS = ("check_ceiling", "require_ceiling", "decide_gate")
DECISIONS = (*CHECKPOINTS, "score", "final_validation", "report")


def assert_jobs_had_what_they_declare(run: Run) -> None:
    """Partition, CPUs, memory, time and GPUs of every job, as the controller recorded them."""
    for job in run.jobs:
        wanted = STAGES[STAGE_OF[rule_of(job)]]
        assert job["JobState"] == "COMPLETED", job
        assert job["Partition"] == ("gpu" if wanted["gpu"] else "cpu"), job
        assert int(job["NumCPUs"]) == wanted["threads"], job
        assert job["MinMemoryNode"] == f"{wanted['mem_mb']}M", job
        assert job["TimeLimit"] == f"00:{wanted['runtime']}:00", job
        assert job.get("TresPerJob") == (f"gres:gpu:{wanted['gpu']}" if wanted["gpu"] else None), job
        assert job["NumNodes"] == "1", job
        assert len(run.cluster.gpus_of(job)) == wanted["gpu"], job


def assert_same_results(workspace: Workspace, expected: Workspace) -> None:
    """Every result has the same bytes."""
    ours, theirs = workspace.results(), expected.results()
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_whole_experiment(cluster: Cluster, tiny: Workspace, finished: Workspace, tmp_path: Path):
    workspace = tiny.copy(tmp_path)
    run = start(cluster, workspace)
    output = run.succeed(600)
    once = Counter(dict.fromkeys(STAGE_OF, 1))
    more = Counter(evaluate=2, fit_codec=2, measure_reconstruction=1, train_phase1=1, train_phase2=1)
    assert Counter(rule_of(job) for job in run.jobs) == once + more
    assert_jobs_had_what_they_declare(run)
    for rule in DECISIONS:
        assert f"local{'checkpoint' if rule in CHECKPOINTS else 'rule'} {rule}:" in output
    assert_same_results(workspace, finished)


def test_a_gate_that_passes(cluster: Cluster, prepared: Workspace, tmp_path: Path):
    scored = prepared.copy(tmp_path / "local")
    write_f1(scored / f"{RESULTS}/evaluation/ceiling/scores.parquet", {"text": 0.9})
    write_f1(scored / f"{RESULTS}/evaluation/phase1/scores.parquet", {"phase1": 0.8})
    workspace = scored.copy(tmp_path / "slurm")
    run = start(cluster, workspace)
    scored.succeed()
    run.succeed()
    assert json.loads((workspace / f"{RESULTS}/k8/gate/decision.json").read_text()) == {"run_phase2": False}
    assert {"evaluate", "fit_codec"} <= {rule_of(job) for job in run.jobs} <= set(STAGE_OF)
    assert not run.of("train_phase2")
    assert_jobs_had_what_they_declare(run)
    assert_same_results(workspace, scored)


def test_an_evaluation_scattered_over_jobs(cluster: Cluster, prepared: Workspace, tmp_path: Path):
    folder = f"{RESULTS}/evaluation/ceiling"
    workspaces = []
    for shards in (1, 3):
        workspace = prepared.copy(tmp_path / f"{shards}")
        evaluate = ONE_K["evaluate"] | {"batch_size": 16, "shards": shards}
        (workspace / "tiny.yaml").write_text(yaml.safe_dump(ONE_K | {"evaluate": evaluate}))
        workspaces.append(workspace)
    whole, scattered = workspaces
    run = start(cluster, scattered, f"{folder}/scores.parquet")
    whole.succeed(f"{folder}/scores.parquet")
    run.succeed()
    assert [job["JobState"] for job in run.of("evaluate")] == ["COMPLETED"] * 3
    parts = [(scattered / f"{folder}/predictions.{shard}-of-3.jsonl").read_text().splitlines() for shard in range(3)]
    predictions = (whole / f"{folder}/predictions.0-of-1.jsonl").read_text().splitlines()
    assert all(parts) and sorted(sum(parts, [])) == sorted(predictions)
    assert (scattered / f"{folder}/scores.parquet").read_bytes() == (whole / f"{folder}/scores.parquet").read_bytes()
