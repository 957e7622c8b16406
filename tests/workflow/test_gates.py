"""The DAG before and after the gates: Phase 2 is part of the experiment exactly if its gate asks for it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import DIMS, RESULTS, Workspace, printed_jobs

from latentwire.settings import Evaluate

pytestmark = pytest.mark.workflow

Decide = Callable[[str], tuple[Workspace, str]]
PHASE2_FILE = f"{RESULTS}/k8/seed0/phase2/adapter.safetensors"
TRAINING = {"prepare_data": 1, "read_embeddings": 1, "count_tokens": 1, "fit_pca": 1}
CEILING = Counter(evaluate=1, score=1, check_ceiling=1, require_ceiling=1)
PHASE1 = Counter(fit_codec=2, train_phase1=2)
EVALUATED = PHASE1 + Counter(evaluate=1, score=1)
GATE = Counter(decide_gate=2)
# What belongs to ``final`` whatever the gates decide; its arms are known when they have.
FINAL = Counter(evaluate=1, score=1, final_validation=1)
DEFAULT_ARMS = ", ".join(Evaluate().arms)
UNTIL_GATE = Counter(TRAINING) + CEILING + EVALUATED + GATE


def test_before_the_gates_nothing_of_phase_2_is_planned(fresh: Workspace):
    plan = fresh.plan()
    assert plan.counts == UNTIL_GATE + FINAL + Counter(report=1)
    assert sorted(plan.of("decide_gate"), key=str) == [{"k": "4"}, {"k": "8"}]
    assert {wildcards["evaluation"] for wildcards in plan.of("evaluate")} == {"ceiling", "phase1", "final"}


@pytest.mark.parametrize(
    ("target", "counts"),
    [
        ("data", {"prepare_data": 1, "read_embeddings": 1, "count_tokens": 1}),
        ("pca", TRAINING),
        ("phase1", Counter(TRAINING) + CEILING + EVALUATED),
        ("gate", UNTIL_GATE),
        ("phase2", UNTIL_GATE),
        ("final", UNTIL_GATE + FINAL),
        ("report", UNTIL_GATE + FINAL + Counter(report=1)),
    ],
)
def test_targets_without_wildcards(fresh: Workspace, target: str, counts: dict[str, int]):
    assert fresh.plan(target).counts == Counter(counts)


def test_a_file_of_phase_2_shows_its_full_chain(fresh: Workspace):
    plan = fresh.plan(PHASE2_FILE)
    # One evaluation for the gates of both code dimensions.
    # The control is measured where Phase 2 loads the model.
    assert plan.counts == Counter(TRAINING) + CEILING + EVALUATED + Counter(decide_gate=1, train_phase2=2)
    assert [job["arm"] for job in plan.of("train_phase2")] == ["control", "phase2"]


def test_phase_1_waits_for_the_ceiling(fresh: Workspace):
    assert fresh.plan(f"{RESULTS}/k8/seed0/phase1/adapter.safetensors").counts == (
        Counter(TRAINING) + CEILING + Counter(fit_codec=1, train_phase1=1)
    )


def test_a_ceiling_that_is_too_low_ends_the_run_before_any_training(finished: Workspace, tmp_path: Path):
    workspace = finished.copy(tmp_path)
    for k in DIMS:
        shutil.rmtree(workspace / f"{RESULTS}/k{k}/seed0")
    # An untrained reader answers nothing right. With the cluster's profile every other job has four attempts.
    output = workspace.fail("--config", "gate={override_ceiling: false}", "--retries", "3", "--show-failed-logs")
    assert printed_jobs(output).counts == Counter(check_ceiling=1, require_ceiling=1)
    assert "the ceiling is too low" in output and "set gate.override_ceiling to true" in output
    assert not list(workspace.folder.glob(f"{RESULTS}/k*/seed0/phase1/*"))


@pytest.mark.parametrize(("outcome", "dims"), [("pass", []), ("mixed", ["4"]), ("fail", ["4", "8"])])
def test_after_the_gates(decided: Decide, outcome: str, dims: list[str]):
    workspace, gate = decided(outcome)
    assert [json.loads((workspace / f"{RESULTS}/k{k}/gate/decision.json").read_text()) for k in DIMS] == [
        {"run_phase2": str(k) in dims} for k in DIMS
    ]
    plan = workspace.plan("--config", gate)
    per_dim = {"train_phase2": 2, "measure_reconstruction": 1}
    expected = Counter({rule: count * len(dims) for rule, count in per_dim.items() if dims})
    assert plan.counts == expected + FINAL + Counter(report=1)
    assert sorted((job["k"], job["arm"]) for job in plan.of("train_phase2")) == [
        (k, arm) for k in dims for arm in ("control", "phase2")
    ]
    assert workspace.plan("phase2", "--config", gate).counts == Counter(train_phase2=2 * len(dims)) + Counter()


@pytest.mark.parametrize(("outcome", "dims"), [("pass", []), ("mixed", ["4"])])
def test_what_else_is_trained_through_the_model_follows_the_gate_where_it_is_named(
    decided: Decide, outcome: str, dims: list[str]
):
    workspace, gate = decided(outcome)
    named = ("--config", gate, f"evaluate={{arms: [{DEFAULT_ARMS}, distilled, bottleneck]}}")
    plan = workspace.plan(*named)
    assert {(job["k"], job["arm"]) for job in plan.of("train_phase2")} == {
        (k, arm) for k in dims for arm in ("control", "phase2", "distilled")
    }
    assert [job["k"] for job in plan.of("train_bottleneck")] == dims
    expected = Counter(train_phase2=3 * len(dims), train_bottleneck=len(dims))
    assert workspace.plan("phase2", *named).counts == expected + Counter()


def test_a_file_of_distillation_needs_the_control_and_no_phase_2(fresh: Workspace):
    plan = fresh.plan(f"{RESULTS}/k8/seed0/distilled/adapter.safetensors")
    assert [job["arm"] for job in plan.of("train_phase2")] == ["control", "distilled"]


def test_what_is_not_compressed_is_trained_once_if_it_is_named_whatever_the_gates_say(decided: Decide):
    workspace, gate = decided("pass")
    plan = workspace.plan("--config", gate, f"evaluate={{arms: [{DEFAULT_ARMS}, identity_ppl]}}")
    assert plan.of("train_uncompressed") == [{"seed": "0", "arm": "identity_ppl"}]
    assert plan.counts["fit_identity"] == plan.counts["fit_table_codec"] == 1
    assert plan.counts["train_phase2"] == 0


def test_phase_2_is_refused_where_the_gate_passed(decided: Decide, tmp_path: Path):
    passed, gate = decided("pass")
    workspace = passed.copy(tmp_path)
    before = workspace.results()
    output = workspace.fail(PHASE2_FILE, "--show-failed-logs", "--config", gate)
    assert "the gate passed" in output and "set gate.force_phase2 to true" in output
    assert workspace.results() == before


def test_phase_2_can_be_forced(decided: Decide):
    workspace, gate = decided("pass")
    plan = workspace.plan(PHASE2_FILE, "--config", gate.replace("}", ", force_phase2: true}"))
    assert plan.counts == Counter(decide_gate=1, train_phase2=2)


def test_results_that_the_experiment_no_longer_asks_for_are_no_part_of_the_verdict(
    decided: Decide, finished: Workspace, tmp_path: Path
):
    passed, gate = decided("pass")
    workspace = passed.copy(tmp_path)
    for folder in ("phase2", "control"):
        for k in DIMS:
            shutil.copytree(finished / f"{RESULTS}/k{k}/seed0/{folder}", workspace / f"{RESULTS}/k{k}/seed0/{folder}")
    without_linear = "evaluate={arms: [identity, mean, question, random]}"
    run = printed_jobs(workspace.succeed("--config", gate, without_linear))
    assert run.rules == {"evaluate", "score", "measure_reconstruction", "final_validation", "report"}
    verdict = json.loads((workspace / f"{RESULTS}/verdict/verdict.json").read_text())
    for entry in verdict["entries"]:
        assert entry["chosen"] == "phase1"
        assert sorted(entry["arms"]) == ["identity", "mean", "phase1", "question", "random", "text"]
    # The split ``final`` was read under the finished experiment's configuration before.
    assert not verdict["confirmatory"]


def test_a_gate_that_decides_the_same_again_retrains_nothing(changed: Workspace):
    change = ("--config", "gate={threshold: 0.6, failing: 0.4}")
    run = printed_jobs(changed.succeed(*change))
    # What is behind the gates is planned until they have decided; then scores are joined again, and nothing is evaluated.
    decisions = Counter(check_ceiling=1, require_ceiling=1, decide_gate=2, final_validation=1, report=1)
    assert run.counts == decisions + Counter(score=1)
    assert changed.plan(*change) == []


def test_one_run_brings_everything_up_to_date_and_a_gate_decides_on_nothing_older(changed: Workspace):
    """A changed metric concerns scores before and behind the ceiling and the gates, which are ancient inputs."""
    with (changed / "src/latentwire/evaluation/squad_metrics.py").open("a") as source:
        source.write("\nCHANGED = True\n")
    run = printed_jobs(changed.succeed())
    # What the ceiling check finds has the same bytes, so nothing asks again whether it allows training.
    decisions = {"check_ceiling": 1, "decide_gate": 2, "final_validation": 1, "report": 1}
    assert run.counts == Counter({"score": 3} | decisions)
    order = [(job.rule, job.wildcards.get("k"), job.wildcards.get("evaluation")) for job in run]
    for k in map(str, DIMS):
        assert order.index(("score", None, "phase1")) < order.index(("decide_gate", k, None))
    assert changed.plan() == []
