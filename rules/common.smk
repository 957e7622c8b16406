# The only home of helper functions: configuration, paths, and the arguments that rules pass to their programs.
import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from latentwire.arms_table import ARMS, GROUP_ARMS, arm_module_name
from latentwire.commands import typed
from latentwire.configuration import ConfigurationError, checked, content_identity, frozen_hash
from latentwire.fingerprint import ROOT as PACKAGE
from latentwire.fingerprint import fingerprint
from latentwire.layout import Layout

ROOT = Path(workflow.basedir)
SCRIPTS = ROOT / "workflow" / "scripts"
# Global names in a shell command are not tracked, so another interpreter reruns nothing. Commands begin with exec: Slurm
# signals every process of a job, and ends a job whose shell has died of a signal, whatever its program still has to keep.
PYTHON = shlex.quote(sys.executable)

try:
    config = checked(config, Path.cwd())
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None

PATHS = Layout(f"results/{config['experiment']}")
DIMS, SEEDS, SHARDS = config["compress_dims"], config["seeds"], config["evaluate"]["shards"]
CONFIGURATION = frozen_hash(config)
# How this experiment is started, for the commands that a verdict proposes; global names, as above. Where no stage asks
# for a GPU, on this machine, whose profile would otherwise take the demo's overlay.
OVERLAYS = [os.path.relpath(file) for file in workflow.overwrite_configfiles]
OVERRIDES = json.dumps(dict(workflow.config_settings.config))
ON_GPUS = any(stage["gpu"] for stage in config["resources"].values() if isinstance(stage, dict))
COMMAND = " ".join(
    [typed("snakemake"), "--profile", "slurm" if ON_GPUS else "profiles/local"]
    + ([] if ON_GPUS and not OVERLAYS else ["--configfile", *map(shlex.quote, OVERLAYS or ["config.yaml"])])
)
STAGES = ("phase1", "phase2")


wildcard_constraints:
    k=r"\d+",
    seed=r"\d+",
    split="gate|final",
    arm="|".join(arm for arm, row in ARMS.items() if row.trained),
    shard=r"\d+",


def flags(section, *names, prefix=""):
    """Configuration values as command-line flags of the same names, after a prefix."""
    values = {f"{prefix}{name}": config[section][name] for name in names}
    return " ".join(f"--{name} {'none' if v is None else shlex.quote(str(v))}" for name, v in values.items())


def all_but(section, *names):
    """The names of a section's settings without these."""
    return [name for name in config[section] if name not in names]


def optional_flag(name, value):
    """A flag that is left out where the value is None or False, and stands alone where it is True."""
    if value is None or value is False:
        return ""
    return f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}"


def model_flags():
    """Which language model."""
    model = config["model"]
    return f"--model {shlex.quote(model['path'])} {optional_flag('revision', model['revision'])}"


def model_identity():
    """The model's content where it is local: a touch of its files reruns nothing, a change does."""
    return content_identity(Path(config["model"]["path"]))


def source_identity():
    """The content of local data files."""
    files = (config["data"]["train_file"], config["data"]["dev_file"])
    return [content_identity(Path(file)) for file in files if config["data"]["source"] == "local" and file]


def code(script, *modules):
    """The fingerprint of the logic behind a script."""
    return fingerprint(SCRIPTS / script, *modules)


def arms_code(script, arms):
    """The fingerprint of a program that rebuilds embeddings: the shared code, and these arms' modules and rows."""
    return [code(script, *(arm_module_name(arm) for arm in arms)), *(ARMS[arm].determining for arm in arms)]


def device(stage):
    """Where a stage computes: CUDA is asked for exactly where a GPU is, unless the configuration says cpu."""
    return "cuda" if config["resources"][stage]["gpu"] and config["device"] == "auto" else "cpu"


def threads_of(stage):
    """CPU threads of a stage's jobs."""
    return config["resources"][stage]["threads"]


def growing(stage, name):
    """A resource of a stage that grows with every attempt, up to what the configuration allows."""
    first, most = config["resources"][stage][name], config["resources"][f"max_{name}"]
    return lambda wildcards, attempt: first * attempt if most is None else min(first * attempt, most)


def job_resources(stage):
    """Memory, time and GPUs of a stage's jobs; a job's GPUs are of one model and on one node."""
    gpu, model = config["resources"][stage]["gpu"], config["resources"]["gpu_model"]
    resources = {name: growing(stage, name) for name in ("mem_mb", "runtime")}
    if gpu:
        resources |= {"gpu": gpu, "nodes": 1} | ({"gpu_model": model} if model else {})
    return resources


def bootstrap_flags():
    """How intervals are made."""
    return flags("statistics", "resamples") + " " + flags("statistics", "seed", prefix="bootstrap_")


def provenance(path):
    """The provenance beside an artefact."""
    return f"{path}.provenance.json"


def log_of(path):
    """The log of the job that makes ``path``, with its wildcards."""
    return f"{PATHS.root}/logs/{Path(path).relative_to(PATHS.root)}.log"


def benchmark_of(path):
    """Time and memory of the job that makes ``path``."""
    return f"{PATHS.root}/benchmarks/{Path(path).relative_to(PATHS.root)}.tsv"


def at_dimension(k, primary, exploratory):
    """A setting of the primary code dimension, or of the exploratory ones where they have their own."""
    return primary if exploratory is None or k is None or int(k) == DIMS[0] else exploratory


def seeds_of(k):
    """The training seeds at a code dimension."""
    return at_dimension(k, SEEDS, config["exploratory"]["seeds"])


def arms_of(group, split="final", k=None):
    """The configured arms of a group at a code dimension; the gate needs Phase 1 alone."""
    configured = at_dimension(k, config["evaluate"]["arms"], config["exploratory"]["arms"])
    wanted = {"text", "phase1", "phase2", "control", *configured}
    if group == "phase1" and split == "gate":
        wanted = {"phase1"}
    return [arm for arm in GROUP_ARMS[group] if arm in wanted]


def arms_at(group, wildcards):
    """The arms of a group that a job with these wildcards evaluates."""
    return arms_of(group, getattr(wildcards, "split", "final"), getattr(wildcards, "k", None))


def predictions(group):
    """The predictions of one shard of a group's arms."""
    return f"{PATHS.group(group)}/{{split}}/predictions.{{shard}}-of-{SHARDS}.jsonl"


def shard_predictions(group):
    """The predictions of all shards of a group's arms."""
    return expand(predictions(group), shard=range(SHARDS), allow_missing=True)


def gates_before_final(wildcards):
    """The split ``final`` is read after every gate has decided."""
    return ancient(expand(PATHS.gate("{k}", "decision"), k=DIMS)) if wildcards.split == "final" else []


def adapters(group):
    """The trained adapters that the arms of a group read."""

    def paths(wildcards):
        arms = arms_at(group, wildcards) if group in STAGES else []
        return [PATHS.adapter(wildcards.k, wildcards.seed, arm) for arm in arms]

    return paths


def compressors(group):
    """The compressors that the arms of a group read."""

    def paths(wildcards):
        methods = [ARMS[arm].compressor for arm in arms_at(group, wildcards) if ARMS[arm].compressor]
        return [PATHS.compressor(method) for method in dict.fromkeys(methods)]

    return paths


def final_read_flags(wildcards):
    """Where and as what a read of ``final`` is recorded."""
    return f"--final_reads {PATHS.final_reads}" if wildcards.split == "final" else ""


def runs_phase2(k):
    """Whether the gate of ``k`` sends the experiment to Phase 2; asks the checkpoint, never whether a file exists."""
    decision = Path(checkpoints.decide_gate.get(k=k).output.decision)
    return json.loads(decision.read_text())["run_phase2"]


LINEAR_DIMS = [k for k in DIMS if arms_of("linear", k=k)]


def stages_of(k):
    """The stages whose results belong to the experiment at ``k``."""
    return STAGES if runs_phase2(k) else STAGES[:1]


def per_stage(pattern):
    """For every k and seed, ``pattern(k, seed, stage)`` of the stages that the gates ask for."""

    def paths(wildcards):
        return [pattern(k, seed, stage) for k in DIMS for stage in stages_of(k) for seed in seeds_of(k)]

    return paths
