"""The configurations that ship: they parse without a network, agree with the schema, and say what each key is."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config
from workspace import DIMS, ROOT, Workspace, environment

pytestmark = pytest.mark.workflow

Decide = Callable[[str], tuple[Workspace, str]]
HEADLINE = yaml.safe_load((ROOT / "config.yaml").read_text())
SLOW = {"torch", "transformers", "pandas", "numpy", "datasets", "scipy", "sklearn", "matplotlib", "tokenizers"}


def values(config: Any) -> Iterator[Any]:
    """Every value of a configuration that is no section."""
    if isinstance(config, dict):
        for value in config.values():
            yield from values(value)
    else:
        yield config


@pytest.mark.parametrize(
    ("file", "experiment"),
    [
        ("config.yaml", "llama-3.1-8b-squad"),
        ("config/smoke.yaml", "llama-3.1-8b-squad-smoke"),
        ("config/qwen2.5-0.5b.yaml", "qwen2.5-0.5b-squad"),
        ("config/demo.yaml", "demo"),
    ],
)
def test_every_configuration_plans_a_whole_experiment_without_a_network(fresh: Workspace, file: str, experiment: str):
    config = copy.deepcopy(HEADLINE)
    update_config(config, yaml.safe_load((ROOT / file).read_text()))
    plan = fresh.plan(configfile=file)
    assert {output.split("/")[1] for job in plan for output in job.outputs} == {experiment}
    runs = len(config["compress_dims"]) * len(config["seeds"])
    shards = config["evaluate"]["shards"]
    assert plan.counts["train_phase1"] == runs
    assert (plan.counts["evaluate"], plan.counts["score"]) == (3 * shards, 3)
    assert plan.counts["decide_gate"] == len(config["compress_dims"])


def test_the_headline_loads_the_model_at_most_16_times(fresh: Workspace):
    """In every shard of an evaluation, and in every Phase 2; the control trains without it."""
    files = [f"results/llama-3.1-8b-squad/k512/seed{seed}/phase2/adapter.safetensors" for seed in HEADLINE["seeds"]]
    plan = fresh.plan("final", *files, configfile="config.yaml")
    loading = {"evaluate", "train_phase2", "train_bottleneck", "train_uncompressed"}
    loads = Counter(job.rule for job in plan if job.rule in loading and job.wildcards.get("arm") != "control")
    assert loads == Counter(evaluate=12, train_phase2=len(HEADLINE["seeds"])) and loads.total() <= 16
    assert plan.counts["train_phase2"] == 2 * len(HEADLINE["seeds"])


TUNED = {
    "smollm2-135m-squad": ([], 576),
    "smollm2-135m-squad-quick": (["smollm2-quick"], 576),
    "smollm2-135m-hub-squad": (["smollm2-hub"], 576),
    "smollm2-135m-full-squad": (["smollm2-135m-full"], 576),
    "smollm2-360m-squad": (["smollm2-360m"], 960),
    "qwen2.5-0.5b-tuned-squad": (["qwen2.5-0.5b-tuned"], 896),
}


@pytest.mark.parametrize("experiment", TUNED)
def test_every_tuned_reader_has_a_plan_with_more_at_the_primary_dimension(
    experiment: str, fresh: Workspace, tmp_path: Path
):
    overlays, width = TUNED[experiment]
    files = [f"config/{name}.yaml" for name in ("smollm2", *overlays)]
    config = copy.deepcopy(HEADLINE)
    for file in files:
        update_config(config, yaml.safe_load((ROOT / file).read_text()))
    workspace = fresh.copy(tmp_path)
    # As the programs of 'make real' leave them; a plan reads the model's configuration alone.
    for path, content in (
        (Path(config["model"]["path"]) / "config.json", {"hidden_size": width, "max_position_embeddings": 8192}),
        (Path(config["data"]["train_file"]), {}),
        (Path(config["data"]["dev_file"]), {}),
    ):
        (workspace.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace.folder / path).write_text(json.dumps(content))
    plan = workspace.plan("--configfile", *files, configfile=None)
    assert {output.split("/")[1] for job in plan for output in job.outputs} == {experiment}
    primary, *others = config["compress_dims"]
    assert [width // k for k in (primary, *others)] == [8, 4, 2]
    runs = len(config["seeds"]) + len(others) * len(config["exploratory"]["seeds"])
    assert plan.counts["train_phase1"] == runs
    assert plan.counts["evaluate"] == 3 * config["evaluate"]["shards"]
    assert not any(job.wildcards.get("k") != str(primary) and job.wildcards.get("seed", "0") != "0" for job in plan)


def test_exploratory_dimensions_have_their_own_arms_and_seeds(fresh: Workspace, decided: Decide):
    overlay = "exploratory={seeds: [0], arms: [pca]}"
    trained = fresh.plan("--config", overlay, "seeds=[0, 1]").of("train_phase1")
    assert sorted((job["k"], job["seed"]) for job in trained) == [("4", "0"), ("8", "0"), ("8", "1")]
    workspace, gate = decided("pass")
    output = workspace.succeed("-n", "--printshellcmds", "--config", overlay, gate)
    (command,) = re.findall(r"--variants ([a-z0-9_: ]+) --prompts \S+/final.parquet", output)
    primary, other = ({v.split(":")[0] for v in command.split() if f":{k}" in v} for k in DIMS)
    assert primary == {"pca", "snap", "snap_d", "quant", "random", "phase1"}
    assert other == {"pca", "phase1"}


def test_overlays_are_layered_in_order(fresh: Workspace):
    assert {"experiment": "qwen2.5-0.5b-squad"}.items() <= yaml.safe_load(
        (ROOT / "config/qwen2.5-0.5b.yaml").read_text()
    ).items()
    output = fresh.succeed(
        "-n", "--printshellcmds", "--configfile", "config/qwen2.5-0.5b.yaml", "config/smoke.yaml", configfile=None
    )
    assert "results/llama-3.1-8b-squad-smoke/" in output
    assert "--model Qwen/Qwen2.5-0.5B-Instruct" in output and "--train_samples 1000 " in output


def test_the_local_profile_runs_the_demo(fresh: Workspace):
    plan = fresh.plan("--profile", "profiles/local", configfile=None)
    assert {output.split("/")[1] for job in plan for output in job.outputs} == {"demo"}


def test_parsing_the_snakefile_imports_nothing_slow(fresh: Workspace):
    program = (
        "import sys, snakemake.cli\n"
        "before = set(sys.modules)\n"
        "try:\n"
        "    snakemake.cli.main(sys.argv[1:])\n"
        "except SystemExit as done:\n"
        "    assert not done.code, done.code\n"
        "print('IMPORTED', *sorted({name.split('.')[0] for name in set(sys.modules) - before}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-n", "--quiet", "--configfile", "tiny.yaml"],
        cwd=fresh.folder,
        env=environment(fresh.folder),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(re.search(r"^IMPORTED (.*)$", done.stdout, re.MULTILINE)[1].split())
    assert "latentwire" in imported
    assert imported & SLOW == set()


def test_the_demo_names_nothing_from_the_hub():
    config = copy.deepcopy(HEADLINE)
    update_config(config, yaml.safe_load((ROOT / "config/demo.yaml").read_text()))
    assert config["data"]["source"] == "demo"
    assert (config["data"]["path"], config["data"]["revision"], config["model"]["revision"]) == (None, None, None)
    assert [value for value in values(config) if isinstance(value, str) and "/" in value] == ["resources/reader"]


def test_bad_configurations_end_before_any_job(fresh: Workspace):
    output = fresh.fail("-n", "--config", "phase1={learning_rate: 0.1, epoch: 2}", "gate={threshold: high}")
    assert "phase1.epoch: unknown key; did you mean 'epochs'?" in output
    assert "gate.threshold: 'high' should be a valid number" in output
    assert "Traceback" not in output
    assert not (fresh / "results").exists()


def test_a_dimension_larger_than_the_models_is_refused(fresh: Workspace):
    assert "compress_dims: 33 is larger than the model's embedding dimension, 32" in fresh.fail(
        "-n", "--config", "compress_dims=[33]"
    )


@pytest.mark.parametrize("text", ["Name {name}, {k} or {{both}}", "-x", "--help", 'it\'s $HOME; `pwd` & "more"'])
def test_a_prompt_reaches_its_program_as_it_is(fresh: Workspace, text: str):
    (fresh / "own.yaml").write_text(yaml.safe_dump({"model": {"system_prompt": text}}))
    output = fresh.succeed("data", "-n", "--printshellcmds", "--configfile", "tiny.yaml", "own.yaml", configfile=None)
    (command,) = [line for line in output.splitlines() if "prepare_data.py" in line]
    words = shlex.split(command.partition(": ")[2])
    given = [own for own in words if own.startswith("--system_prompt")][0]
    assert (given.partition("=")[2] or words[words.index(given) + 1]) == text


def test_an_experiment_may_be_called_as_a_file_is(fresh: Workspace):
    plan = fresh.plan("--config", "experiment=x.json")
    assert {output.split("/")[1] for job in plan for output in job.outputs} == {"x.json"}


def test_numbers_that_arrive_as_strings_are_numbers(fresh: Workspace):
    output = fresh.succeed("-n", "--printshellcmds", "--config", "gate={threshold: 0.6}", "compress_dims=[16, 2]")
    assert "--threshold 0.6 --failing 0.5" in output
    assert "--compress_dims 16 2 " in output
    assert json.loads(re.search(r"--overrides '(.*?)'", output)[1]) == {
        "gate": {"threshold": "0.6"},
        "compress_dims": ["16", "2"],
    }
