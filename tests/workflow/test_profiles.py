"""Profiles as people type them, dry: the cluster's from the repository's root, and a site's on top of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from workspace import ROOT, Workspace

pytestmark = pytest.mark.workflow

# As in docs/hpc.md.
SITE = """
default-resources:
  slurm_account: "'physics'"
  qos: "'night'"
  slurm_extra: "'--exclude=n7'"
config: ["resources={gpu_model: h100, max_runtime: 300, phase1: {gpu: 0}}"]
"""
HEADLINE = {"train_phase1", "evaluate", "decide_gate", "report"}


def resources(text: str, rule: str) -> dict[str, str]:
    """The resources of a rule's first job, from a dry run."""
    block = re.search(rf"(?:rule|checkpoint) {rule}:\n(.*?)\n\n", text, re.DOTALL)[1]
    return dict(pair.split("=", 1) for pair in re.search(r"resources: (.*)", block)[1].split(", ") if "=" in pair)


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        ((), HEADLINE),
        (("--configfile", "config/smoke.yaml"), HEADLINE),
        (("--configfile", "config/demo.yaml"), HEADLINE),
        (("phase2",), {"train_phase1", "decide_gate"}),
        (("report",), HEADLINE),
    ],
)
def test_the_slurm_profile_as_typed(fresh: Workspace, arguments: tuple[str, ...], rules: set[str]):
    text = fresh.succeed("-n", *arguments, "--profile", "slurm", configfile=None, cores=None)
    assert rules <= set(re.findall(r"(?:rule|checkpoint) (\w+):", text))


def test_declared_resources_grow_and_gpus_are_asked_for_where_they_are_used(fresh: Workspace):
    text = fresh.succeed("-n", "--profile", "slurm", configfile=None, cores=None)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())["resources"]
    for rule, stage in {"prepare_data": "prepare", "fit_pca": "compression", "train_phase1": "phase1"}.items():
        found = resources(text, rule)
        assert found["mem_mb"] == str(config[stage]["mem_mb"])
        assert found["runtime"] == str(config[stage]["runtime"])
        assert found.get("gpu") == (str(config[stage]["gpu"]) if config[stage]["gpu"] else None)
    four = fresh.succeed(
        "-n", "--profile", "slurm", "--config", "resources={evaluate: {gpu: 4}}", configfile=None, cores=None
    )
    assert (resources(four, "evaluate")["gpu"], resources(four, "evaluate")["nodes"]) == ("4", "1")


def test_every_rule_with_a_program_declares_what_its_job_needs(fresh: Workspace):
    text = fresh.succeed("-n", "--profile", "slurm", "report", configfile=None, cores=None)
    for rule in set(re.findall(r"(?:rule|checkpoint) (\w+):", text)):
        found = resources(text, rule)
        assert {"mem_mb", "runtime"} <= found.keys() and "<TBD>" not in (found["mem_mb"], found["runtime"]), rule


def test_whatever_keeps_a_state_is_told_how_long_it_may_take(fresh: Workspace):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    phase2 = f"results/{config['experiment']}/k512/seed0/phase2/adapter.safetensors"
    text = fresh.succeed("-n", "--profile", "slurm", "all", phase2, configfile=None, cores=None)
    commands = [line for line in text.splitlines() if " --state " in line]
    found = {re.search(r"scripts/(\w+)\.py", line)[1]: re.search(r" --runtime (\d+) ", line)[1] for line in commands}
    assert found.keys() == {"train_phase1", "train_phase2", "evaluate"}
    stages = {"train_phase1": "phase1", "train_phase2": "phase2", "evaluate": "evaluate"}
    assert found == {program: str(config["resources"][stage]["runtime"]) for program, stage in stages.items()}


def test_phase_2_runs_a_process_per_gpu_that_its_job_reserves_and_the_control_one(fresh: Workspace):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    adapters = [
        f"results/{config['experiment']}/k512/seed0/{arm}/adapter.safetensors" for arm in ("phase2", "control")
    ]
    two = "resources={phase2: {gpu: 2}}"
    for profile, options in ((("-n", "--profile", "slurm"), ("--config", two)), (("-n", "--profile", "slurm"), ())):
        text = fresh.succeed(*profile, *adapters, *options, configfile=None, cores=None)
        commands = [line for line in text.splitlines() if "train_phase2.py" in line]
        started = {
            ("--beta 0" in line): "-m torch.distributed.run --standalone --nproc-per-node 2 " in line
            for line in commands
        }
        assert started == {True: False, False: bool(options)}


def test_further_attempts_get_more_up_to_what_the_configuration_allows(fresh: Workspace):
    def third(*arguments: str) -> dict[str, str]:
        text = fresh.succeed("-n", "--attempt", "3", "--profile", "slurm", *arguments, configfile=None, cores=None)
        return resources(text, "evaluate")

    first = yaml.safe_load((ROOT / "config.yaml").read_text())["resources"]["evaluate"]
    assert third()["runtime"] == str(3 * first["runtime"])
    assert third()["mem_mb"] == str(3 * first["mem_mb"])
    allowed = third("--config", "resources={max_runtime: 300, max_mem_mb: 100000}")
    assert (allowed["runtime"], allowed["mem_mb"]) == ("300", "100000")


def test_a_sites_own_profile_wins_without_editing_the_repository(fresh: Workspace, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(SITE)
    for site in (
        ("--profile", "slurm", "--profile", str(tmp_path)),
        ("--profile", "slurm", "--workflow-profile", str(tmp_path)),
    ):
        text = fresh.succeed("-n", *site, configfile=None, cores=None)
        found = resources(text, "evaluate")
        assert {found["slurm_account"], found["qos"], found["gpu_model"]} == {"physics", "night", "h100"}
        assert found["slurm_extra"] == "--exclude=n7"
        for rule in ("train_phase1", "fit_pca"):  # without a GPU, naming its model would ask for one
            assert not {"gpu", "gpu_model"} & resources(text, rule).keys()
        third = fresh.succeed("-n", "--attempt", "3", *site, configfile=None, cores=None)
        assert resources(third, "evaluate")["runtime"] == "300"


def test_every_entry_of_the_cluster_profile_is_explained():
    lines = (ROOT / "profiles/slurm/config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line and line[0] not in "# ":
            assert lines[number - 1].startswith("#"), line
