"""Whole experiments with configurations drawn from all that is allowed: each comes to its report, or is refused at once.

What the configuration's check lets pass has to run to the end: an error of a program is one too late. The exception
is what only the data can say, such as a prompt that is too long: it ends preparation in one line.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import yaml
from experiment import SMALL, Experiment, is_current, leftovers
from ledger import Turn
from workspace import ROOT, Workspace

from latentwire.configuration import ConfigurationError, checked
from latentwire.data.corpus import generate_corpus
from latentwire.files import read_json
from latentwire.settings import BaselineArm, CodeArm, NoiseCodec, OnLongPrompt, Scoring

TRAIN, DEV, TEXTS = "data/the train.json", "data/dev [1].json", "data/other domain.jsonl"
PROMPTS = (
    None,
    "",
    "Be short.",
    "{context} {{ x }} {name}",
    "-x 'a' \"b\" $HOME `c`; d & e\\",
    "Réponds. 答え",
    "a\nb",
)
NAMES = ("x.json", "a-b", "A.1", "0", "n" * 100)
ERROR = re.compile(r"^\w+\.py: error: .*", re.MULTILINE)


def some(chosen: random.Random, values: tuple[str, ...], most: int) -> list[str]:
    """Some of the values, in any order."""
    return chosen.sample(values, chosen.randrange(min(most, len(values)) + 1))


def section(chosen: random.Random, share: float, **settings: list[Any]) -> dict[str, Any]:
    """About a share of the settings, each with one of its values."""
    return {name: chosen.choice(values) for name, values in settings.items() if chosen.random() < share}


def drawn(chosen: random.Random) -> dict[str, Any]:
    """The small experiment with other settings, each within its own bounds."""
    arms = some(chosen, get_args(BaselineArm), 8)
    noise = {name: chosen.randrange(1, 4) for name in some(chosen, tuple(set(arms) & {*get_args(NoiseCodec)}), 2)}
    training = {"epochs": [1, 2], "batch_size": [1, 7, 10**6], "lr": [1e-5, 1], "weight_decay": [0, 1]}
    training |= {"warmup_fraction": [0, 1], "gradient_clip": [1e-3, 1e6]}
    top = section(
        chosen,
        0.3,
        experiment=[*NAMES],
        compress_dims=[[1], [32], [8, 4], [4, 31, 1]],
        seeds=[[0], [7, 0], [2**32 - 1]],
        exploratory=[{"seeds": [3], "arms": some(chosen, get_args(CodeArm), 3)}],
        device=["auto", "cpu"],
    )
    sections = {
        "model": section(
            chosen, 0.4, dtype=["float32", "bfloat16", "float16"], prompt_style=["chat", "plain"],
            system_prompt=[*PROMPTS], template_arguments=[{"enable_thinking": False}, {"date": "it's $1"}],
        ),
        "data": section(
            chosen, 0.3, source=["demo", "local"], seed=[0, 5], train_samples=[40, 60, None], gate_samples=[60, None],
            final_samples=[60, 90], spread_over_articles=[True, False], max_prompt_tokens=[128, 256, 448],
            on_long_prompt=["trim", *get_args(OnLongPrompt)], skip_invalid=[True, False],
        ),
        "pca": section(chosen, 0.4, samples=["auto", "all", 10, 10**6], smoothing=[0, 1, 1e6]),
        "adapter": section(chosen, 0.3, hidden=[1, 24, None]),
        "phase1": section(chosen, 0.3, **training, smoothing=[0, 0.5]),
        "phase2": section(
            chosen, 0.3, **training | {"epochs": [0.1, 1]}, alpha=["auto", 0, 3], beta=["auto", 1e-3],
            calibration_batches=[1, 50], measure_prompts=[1, 10**6], activation_checkpointing=[True],
        ),
        "evaluate": {"arms": arms, "noise_controls": noise} | section(
            chosen, 0.3, batch_size=[1, 7, 10**5], max_new_tokens=[1, 9], identity_samples=[1, 10**6, None],
            divergence_samples=[1, 30, None], other_domain=[None, TEXTS], scoring=[*get_args(Scoring)],
            shards=[1, 3, 7],
        ),
        "gate": section(chosen, 0.3, threshold=[0.0, 0.7, 1.0], failing=[0.0, 0.5], force_phase2=[True]),
        "verdict": section(chosen, 0.2, cosine=[-1, 1], fvu=[0, 10]),
        "statistics": section(chosen, 0.2, resamples=[200, 1000], seed=[1]),
    }  # fmt: skip
    if sections["data"].get("source") == "local":
        sections["data"] |= {"train_file": TRAIN, "dev_file": chosen.choice((DEV, None))}
    config = SMALL | top
    return config | {name: SMALL.get(name, {}) | own for name, own in sections.items()}


def prepare_files(workspace: Workspace) -> None:
    """The files that configurations may name."""
    (workspace / "data").mkdir(exist_ok=True)
    (workspace / TRAIN).write_text(json.dumps(generate_corpus(1, 60, paragraphs=2, questions=2)))
    (workspace / DEV).write_text(json.dumps(generate_corpus(2, 50, paragraphs=2, questions=2)))
    shutil.copy2(next((ROOT / "resources/other-domain").glob("*.jsonl")), workspace / TEXTS)


def outcome_of(workspace: Workspace, config: dict[str, Any]) -> tuple[str, str]:
    """How an experiment ended, and what explains it."""
    try:
        checked(json.loads(json.dumps(config)), workspace.folder)
    except ConfigurationError:
        return "refused", ""
    (workspace / "drawn.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    code, output = workspace.run(configfile="drawn.yaml")
    results = workspace / f"results/{config['experiment']}"
    logs = [path.read_text(errors="replace") for path in (results / "logs").rglob("*.log")]
    if "Traceback (most recent call last)" in output + "".join(logs):
        return "traceback", output + "".join(text for text in logs if "Traceback" in text)
    if code != 0:
        said = "\n".join(error for text in logs for error in ERROR.findall(text))
        return ("refused by its data", "") if "prepare_data.py: " in said else ("fails later", said or output)
    if left := leftovers(results):
        return "leftover", str(left)
    code, output = workspace.run("verify", configfile="drawn.yaml")
    return ("report", "") if code == 0 and is_whole(results) else ("unclear", output)


def is_whole(results: Path) -> bool:
    """Whether the verdict and the report are there."""
    return bool(read_json(results / "verdict/verdict.json")) and (results / "report.html").stat().st_size > 0


def campaign(experiment: Experiment, turn: Turn) -> None:
    """One configuration after another."""
    workspace = Workspace(experiment.folder / "configurations")
    if not (workspace / "tiny.yaml").exists() or not is_current(workspace):
        workspace = experiment.fresh("configurations")
    prepare_files(workspace)
    number = 0
    while turn.going:
        label = f"configuration {number}"
        if not turn.has(label):
            for name in ("results", ".snakemake"):  # the latter with the lock of a campaign that was killed
                shutil.rmtree(workspace / name, ignore_errors=True)
            config = drawn(turn.generator(label))
            outcome, detail = outcome_of(workspace, config)
            changed = {name: own for name, own in config.items() if own != SMALL.get(name)}
            turn.add(label, "really run", outcome, f"{detail}\n{json.dumps(changed)}" if detail else "")
        number += 1
