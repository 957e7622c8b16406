"""Workspaces: folders in which Snakemake runs, with their own copy of the Snakefile, the rules and the package."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from preloaded import preloaded_python
from transformers import PreTrainedTokenizerFast

from latentwire.files import hash_of, read_json, sha256_of, write_json
from latentwire.integrity import record_of
from latentwire.provenance import DIGEST, SUFFIX
from latentwire.readers.small import ReaderSettings, build_reader

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow/scripts"
SOURCES = ("Snakefile", "rules", "workflow", "config", "config.yaml", "profiles", "slurm", "src")
NAME = "tiny"
RESULTS = f"results/{NAME}"
DIMS = (8, 4)
# The only part of any result that differs between runs.
RUN_TIMES = re.compile(rb"<h2>Run times</h2>.*?</table>", re.DOTALL)

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
    "evaluate": {"batch_size": 64, "max_new_tokens": 4, "identity_samples": 20, "shards": 1},
    # An untrained reader answers nothing right.
    "gate": {"override_ceiling": True},
    "statistics": {"resamples": 200},
    "resources": dict.fromkeys(("prepare", "compression", "phase1", "phase2", "evaluate", "reconstruction"), CPU),
}


def write_reader(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Write an untrained reader of 32 dimensions as a model directory."""
    model = build_reader(ReaderSettings(width=32, heads=4, layers=1, mlp_width=32), tokenizer)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)  # wide enough for its answers to depend on the prompt
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def new_workspace(folder: Path, reader: Path, experiment: dict[str, Any]) -> Workspace:
    """A folder with the project's sources, a reader, and ``experiment`` as ``tiny.yaml``."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_symlink():
            (folder / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / name)
    # Once, for this workspace and its copies: programs that start by the hundred write none.
    compileall.compile_dir(folder / "src", quiet=1)
    shutil.copytree(reader, folder / "reader")
    shutil.copytree(ROOT / "resources/reader", folder / "resources/reader")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    return Workspace(folder)


def write_f1(file: Path, means: dict[str, float], k: int | None = None) -> None:
    """Give arms the F1 of so many right answers, at one code dimension or at all."""
    scores = pd.read_parquet(file)
    for arm, mean in means.items():
        own = scores.index[(scores["arm"] == arm) & (k is None or scores["k"].eq(k))]
        scores.loc[own, "f1"] = [float(number < round(mean * len(own))) for number in range(len(own))]
    scores.to_parquet(file, index=False)
    rerecord(file)


def rerecord(file: Path) -> None:
    """Let every record say that a file's producer wrote what a test has written, and that others were made from it."""
    own, new = record_of(file), sha256_of(file)
    old = own.outputs[file.name].sha256
    for path in next(folder for folder in file.parents if folder.name == NAME).rglob(f"*{SUFFIX}"):
        record = {name: value for name, value in read_json(path).items() if name != DIGEST}
        record["inputs"] = {name: new if sha256 == old else sha256 for name, sha256 in record["inputs"].items()}
        if path == own.path:
            record["outputs"][file.name] = {"bytes": file.stat().st_size, "sha256": new}
        write_json(path, record | {DIGEST: hash_of(record)})


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    output: str
    error: str


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
        "SOURCE_DATE_EPOCH": "1764000000",  # results are compared, also across midnight
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")} | own


@dataclass(frozen=True)
class Workspace:
    """A folder in which Snakemake runs."""

    folder: Path

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    def run(self, *arguments: str, configfile: str | None = "tiny.yaml", cores: str | None = "2") -> tuple[int, str]:
        """Run Snakemake: its exit status, and its standard output and error as one text."""
        given = {"--cores": cores, "--configfile": configfile}
        words = [*arguments, *(word for pair in given.items() if pair[1] for word in pair)]
        done = self.python("-m", "snakemake", *words, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    def python(self, *arguments: object, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        """Run the interpreter, as what a user starts here would be."""
        return subprocess.run(
            [preloaded_python(), *map(str, arguments)],
            cwd=self.folder, env=environment(self.folder), stdout=subprocess.PIPE, stderr=stderr, text=True, check=False,
        )  # fmt: skip

    def succeed(self, *arguments: str, **options) -> str:
        """Run Snakemake, which must succeed; its output."""
        code, output = self.run(*arguments, **options)
        assert code == 0, output
        return output

    def fail(self, *arguments: str, **options) -> str:
        """Run Snakemake, which must fail; its output."""
        code, output = self.run(*arguments, **options)
        assert code != 0, output
        return output

    def plan(self, *arguments: str, **options) -> Plan:
        """The jobs of a dry run."""
        text = self.succeed("-n", *arguments, **options)
        plan = printed_jobs(text)
        # Each of these says so in its own way: a plan that could not be read must not pass for an empty one.
        assert ("Nothing to be done" in text) == (not plan), text
        return plan

    def copy(self, folder: Path) -> Workspace:
        """The same files, with their times, elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, symlinks=True)
        return Workspace(folder)

    def results(self) -> dict[str, bytes]:
        """The content of every result but logs, times, checkpoints of interrupted runs and the store of answers."""
        root = self / RESULTS
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.relative_to(root).parts[0] not in ("logs", "benchmarks", "state", "answers")
        }
        if "report.html" in found:
            assert RUN_TIMES.search(found["report.html"])
            found["report.html"] = RUN_TIMES.sub(b"", found["report.html"])
            del found["report.html.provenance.json"]  # which holds the page's digest, run times included
        return found
