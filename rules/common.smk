# The only home of helper functions: configuration, paths, and the arguments that rules pass to their programs.
import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from latentwire.arms_table import ALWAYS, ARMS, COMPRESSORS, EVALUATIONS, QUANTISED, TRAINED, UNCOMPRESSED, Variant
from latentwire.arms_table import arm_row
from latentwire.commands import COMMAND_VARIABLE, typed, with_overrides
from latentwire.configuration import ConfigurationError, checked, content_identity, frozen_hash
from latentwire.decisions.requirements import phase2_wanted
from latentwire.errors import InputError
from latentwire.fingerprint import ROOT as PACKAGE
from latentwire.fingerprint import fingerprint
from latentwire.integrity import SMALL_BYTES, faults
from latentwire.layout import Layout

ROOT = Path(workflow.basedir)
SCRIPTS = shlex.quote(str(ROOT / "workflow" / "scripts"))
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
# Its programs say by which command a file that was spoilt is made again.
os.environ[COMMAND_VARIABLE] = with_overrides(COMMAND, json.loads(OVERRIDES))
# A dry run compares sizes and times alone: Snakemake has nothing to do for a file that was emptied and kept its time.
if workflow.is_main_process:
    for fault in faults(PATHS.root, most=SMALL_BYTES)[0]:
        logger.warning(str(fault))
OWN_CODECS = {name: Path(file) for name, file in config["codecs"].items()}
# Whether it fits behind the longest prompt: a check that changes no prompt, so another cap reruns nothing.
LONGEST_ANSWER = f"--max_new_tokens {config['evaluate']['max_new_tokens']}"
CODEC_FILES = ("codes.safetensors", "decoder.safetensors", "config.json")


wildcard_constraints:
    k=r"\d+",
    seed=r"\d+",
    evaluation="|".join(EVALUATIONS),
    stage="|".join(TRAINED),
    arm="|".join([*(arm for arms in TRAINED.values() for arm in arms), *UNCOMPRESSED, *QUANTISED]),
    codec="|".join([*{row.codec for row in ARMS.values() if row.codec}, *OWN_CODECS]),
    shard=r"\d+",
    weighting="root|type",


def flags(section, *names, prefix=""):
    """Configuration values as command-line flags of the same names, after a prefix."""
    values = {f"{prefix}{name}": config[section][name] for name in names}
    written = (f"--{n} none" if value is None else optional_flag(n, value) for n, value in values.items())
    return " ".join(filter(None, written))


def all_but(section, *names):
    """The names of a section's settings without these."""
    return [name for name in config[section] if name not in names]


def optional_flag(name, value):
    """A flag that is left out if the value is None, False or empty, and stands alone if it is True."""
    if value is None or value is False or value == {}:
        return ""
    if value is True:
        return f"--{name}"
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return f"--{name}{'=' if text.startswith('-') else ' '}{quoted(text)}"


def quoted(text):
    """A text as one word of a shell command; its braces are no wildcards."""
    return shlex.quote(text).replace("{", "{''")


def model_flags():
    """Which language model."""
    model = config["model"]
    return f"{optional_flag('model', model['path'])} {optional_flag('revision', model['revision'])}"


def model_identity():
    """Content hash of a local model: a change of its files reruns stages, touching them does not."""
    return content_identity(Path(config["model"]["path"]))


def source_identity():
    """The content of local data files."""
    files = (config["data"]["train_file"], config["data"]["dev_file"])
    return [content_identity(Path(file)) for file in files if config["data"]["source"] == "local" and file]


def code(script, *modules):
    """The fingerprint of the logic behind a script."""
    return fingerprint(ROOT / "workflow" / "scripts" / script, *modules)


def variants_code(script, variants):
    """The fingerprint of a program that reads codecs, these arms' rows, and the files of the user's own codecs."""
    rows = [arm_row(arm) for arm in dict.fromkeys(variant.arm for variant in variants)]
    modules = dict.fromkeys(row.codec_module for row in rows if row.codec_module)
    own = [content_identity(OWN_CODECS[row.name]) for row in rows if row.name in OWN_CODECS]
    return [code(script, *modules), *(row.determining for row in rows), *own]


def codec_code(codec):
    """The fingerprint of the fitting of a codec: the program, and its family's module or the user's own file."""
    if codec in OWN_CODECS:
        return [code("fit_codec.py", "latentwire.codecs.base"), content_identity(OWN_CODECS[codec])]
    family = next(row.family for row in ARMS.values() if row.codec == codec)
    return code("fit_codec.py", f"latentwire.codecs.{family}")


def device(stage):
    """The device of a stage: CUDA if it requests a GPU, unless the configuration says cpu."""
    return "cuda" if config["resources"][stage]["gpu"] and config["device"] == "auto" else "cpu"


def in_processes(stage):
    """How Python starts one process per GPU of a stage's job, if it reserves several."""
    gpus = config["resources"][stage]["gpu"] if device(stage) == "cuda" else 0
    return f"-m torch.distributed.run --standalone --nproc-per-node {gpus}" if gpus > 1 else ""


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
    """A setting of the primary code dimension, or of the exploratory ones if they have their own."""
    return primary if exploratory is None or k is None or int(k) == DIMS[0] else exploratory


def seeds_of(k):
    """The training seeds at a code dimension."""
    return at_dimension(k, SEEDS, config["exploratory"]["seeds"])


def wanted(arm, k=None):
    """Whether an arm is part of the experiment at a code dimension, if the gate asks for its stage."""
    configured = at_dimension(k, config["evaluate"]["arms"], config["exploratory"]["arms"])
    return arm in {*ALWAYS, *configured, *OWN_CODECS}


def untrained_rows():
    """The rows of the arms that need no training, the user's own codecs among them, without noise."""
    return [row for row in (*ARMS.values(), *map(arm_row, OWN_CODECS)) if not (row.stage or row.noise)]


def with_noise(variants):
    """Arms, and the draws of noise of their errors' size; of a trained arm one draw for each of its first seeds."""
    found = list(variants)
    for variant in variants:
        draws = config["evaluate"]["noise_controls"].get(variant.arm, 0)
        seeds = range(draws) if variant.seed is None else {*seeds_of(variant.k)[:draws]} & {variant.seed}
        rows = [row for row in ARMS.values() if row.error_of == variant.arm]
        found += [Variant(row.name, variant.k, seed) for row in rows for seed in seeds]
    return found


def untrained_variants(k):
    """The untrained codecs and what is made of them, at a code dimension or (None) those that have none."""
    rows = [row for row in untrained_rows() if row.codec and row.sized == (k is not None) and wanted(row.name, k)]
    return with_noise([Variant(row.name, k) for row in rows])


def trained_variants(k, seed, stage):
    """The arms of a training stage at a code dimension and seed."""
    return with_noise([Variant(arm, k, seed) for arm in TRAINED[stage] if wanted(arm, k)])


def table_trained_variants(seeds):
    """The trained arms that do not depend on the code dimension."""
    arms = [arm for arm in (*QUANTISED, *UNCOMPRESSED) if wanted(arm)]
    return with_noise([Variant(arm, None, seed) for arm in arms for seed in seeds])


def variants_of(evaluation):
    """The arms that are evaluated together; those of ``final`` are known when every gate has decided."""
    if evaluation == "phase1":
        return [Variant("phase1", k, seed) for k in DIMS for seed in seeds_of(k)]
    found = [Variant(row.name) for row in untrained_rows() if row.codec is None and wanted(row.name)]
    if evaluation == "ceiling":
        return found
    found += untrained_variants(None)
    found += table_trained_variants(SEEDS)
    for k in DIMS:
        found += untrained_variants(k)
        found += [v for seed in seeds_of(k) for stage in stages_of(k) for v in trained_variants(k, seed, stage)]
    return found


def codec_inputs(variants):
    """The files of the codecs that arms are, or decode."""
    files = []
    for variant in variants:
        row = arm_row(variant.arm)
        if row.codec and not row.own_codes:
            files += [f"{PATHS.fitted(variant.k, row.codec)}/{name}" for name in CODEC_FILES]
        if row.stage:
            folder = PATHS.codec(variant)
            names = ("codes.safetensors",) if row.own_codes else ()
            files += [f"{folder}/{name}" for name in ("adapter.safetensors", "config.json", *names)]
    return list(dict.fromkeys(files))


def measured_variants(wildcards):
    """The arms whose reconstruction is measured for a training stage."""
    k, seed = int(wildcards.k), int(wildcards.seed)
    found = [Variant("pca", k), *trained_variants(k, seed, wildcards.stage)]
    if wildcards.stage == "phase1":
        untrained = [*untrained_variants(None), *untrained_variants(k)]
        # Of noise the first draw: draws differ in direction, and hardly in size.
        found += [v for v in untrained if arm_row(v.arm).kind != "bound" and v.arm != "pca" and not v.seed]
        found += table_trained_variants([seed])
    return found


def codes_of(arm):
    """The codes that a training reads."""
    return lambda w: f"{PATHS.fitted(w.k, arm_row(arm or w.arm).codec)}/codes.safetensors"


def own_codec_flags(variants):
    """The Python files of the user's own codecs among arms."""
    files = [str(OWN_CODECS[arm]) for arm in dict.fromkeys(v.arm for v in variants) if arm in OWN_CODECS]
    return f"--codec_files {shlex.join(files)}" if files else ""


def of_all_shards(path):
    """A file of every shard of an evaluation."""
    return expand(path, shard=range(SHARDS), allow_missing=True)


def gates_before_final(wildcards):
    """The split ``final`` is read after every gate has decided."""
    return ancient(expand(PATHS.gate("{k}", "decision"), k=DIMS)) if wildcards.evaluation == "final" else []


def final_read_flags(wildcards):
    """Where and as what a read of ``final`` is recorded."""
    return f"--final_reads {PATHS.final_reads}" if wildcards.evaluation == "final" else ""


def other_domain(wildcards):
    """The file of another domain's text, on which the arms of ``final`` alone are compared; None for none."""
    return config["evaluate"]["other_domain"] if wildcards.evaluation == "final" else None


def runs_phase2(k):
    """Whether the gate of ``k`` sends the experiment to Phase 2; asks the checkpoint, never whether a file exists."""
    try:
        return phase2_wanted(checkpoints.decide_gate.get(k=k).output.decision)
    except InputError as error:
        logger.error(str(error))
        sys.exit(1)  # an exception would be shown with the way through the rules, as if it were a mistake of theirs


def stages_of(k):
    """The stages whose results belong to the experiment at ``k``."""
    return ("phase1", "phase2") if runs_phase2(k) else ("phase1",)


def per_stage(pattern):
    """For every k and seed, ``pattern(k, seed, stage)`` of the stages that the gates ask for."""

    def paths(wildcards):
        return [pattern(k, seed, stage) for k in DIMS for stage in stages_of(k) for seed in seeds_of(k)]

    return paths
