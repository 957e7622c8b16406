"""Wrong configurations and wrong question files: each is refused in words, or holds to its end.

An accepted configuration's dry run has to succeed, which is tried with a sample of them. An accepted question file has
to be prepared, counted and scored.
"""

from __future__ import annotations

import os
import random
import shutil
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from experiment import Experiment, is_current
from ledger import Turn
from spoiling import spoilt, spoilt_questions
from workspace import Workspace

from latentwire.configuration import ConfigurationError, checked, frozen_hash
from latentwire.data.corpus import generate_corpus
from latentwire.data.prepare import prepare
from latentwire.data.prompts import PromptRenderer
from latentwire.data.prompts_table import iterate_prompt_ids, read_prompts
from latentwire.data.splits import SPLITS
from latentwire.data.tokenizer import build_tokenizer
from latentwire.errors import InputError
from latentwire.evaluation.divergence import forced_prompts
from latentwire.evaluation.scores import score_predictions
from latentwire.settings import Data

BATCH = 250
LONGEST_MESSAGE = 8000  # characters


def configurations(workspace: Workspace, turn: Turn, number: int) -> None:
    """A batch of configurations, and a dry run of one that was accepted."""
    seen: Counter[str] = Counter()
    accepted: list[Any] = []
    for index in range(BATCH):
        label = f"configuration {number * BATCH + index}"
        config = spoilt(turn.generator(label))
        try:
            frozen_hash(checked(config, workspace.folder))
            accepted.append(spoilt(turn.generator(label)))  # as it was before it was checked
            seen["accepted"] += 1
        except ConfigurationError as error:
            seen["refused" if len(str(error)) < LONGEST_MESSAGE else "unclear"] += 1
        except Exception:
            turn.add(label, "configurations", "traceback", traceback.format_exc())
    for outcome, count in seen.items():
        turn.add(f"configurations {number}, {outcome}", "configurations", outcome, count=count)
    chosen = [config for config in accepted if _as_written(config) == config]
    if chosen:
        dry_run(workspace, turn, number, turn.generator(f"dry run {number}").choice(chosen))


def _as_written(config: Any) -> Any:
    try:
        return yaml.safe_load(yaml.safe_dump(config))
    except yaml.YAMLError:
        return None


def dry_run(workspace: Workspace, turn: Turn, number: int, config: dict[str, Any]) -> None:
    """Snakemake's plan for a configuration that was accepted."""
    (workspace / "fuzz.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    code, output = workspace.run("-n", configfile="fuzz.yaml")
    outcome = "traceback" if "Traceback" in output else "planned" if code == 0 else "fails later"
    turn.add(f"dry run {number}", "dry runs of accepted ones", outcome, output if outcome != "planned" else "")


def questions(folder: Path, renderer: PromptRenderer, turn: Turn, number: int) -> None:
    """A batch of question files."""
    seen: Counter[str] = Counter()
    for index in range(BATCH):
        label = f"question file {number * BATCH + index}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        outcome, detail = question_file(folder, renderer, turn.generator(label))
        if detail:
            turn.add(label, "question files", outcome, detail)
        else:
            seen[outcome] += 1
    for outcome, count in seen.items():
        turn.add(f"question files {number}, {outcome}", "question files", outcome, count=count)


def question_file(folder: Path, renderer: PromptRenderer, generator: random.Random) -> tuple[str, str]:
    """How one file is taken, and the traceback of a wrong outcome."""
    file = folder / "train.json"
    file.write_bytes(spoilt_questions(generator, generate_corpus(5, 4, paragraphs=2, questions=2)))
    settings = Data(
        source="local",
        path=None,
        revision=None,
        train_file=str(file),
        train_samples=None,
        gate_samples=None,
        final_samples=None,
        max_prompt_tokens=generator.choice((96, 256)),
        on_long_prompt=generator.choice(("error", "trim")),
        skip_invalid=generator.random() < 0.5,
    )
    try:
        prepare(settings, renderer, folder)
    except InputError as error:
        said = str(error)
        return ("refused", "") if len(said) < LONGEST_MESSAGE else ("unclear", said)
    except Exception:
        return "traceback", traceback.format_exc()
    try:
        for split in SPLITS:
            use(folder / f"{split}.parquet", renderer)
    except Exception:
        return "fails later", traceback.format_exc()
    return "accepted", ""


def use(file: Path, renderer: PromptRenderer) -> None:
    """What later stages do with a split."""
    prompts = read_prompts(file)
    assert (
        sum(1 for _ in iterate_prompt_ids(file))
        == len(forced_prompts(prompts, renderer.tokenizer, 512))
        == len(prompts)
    )
    told = zip(prompts["id"], prompts["article"], prompts["answers"], strict=True)
    answered = [
        {"arm": "text", "k": None, "seed": None, "id": own, "article": article, "prediction": answers[0]}
        | {"tokens": 1, "finished": "stop"}
        for own, article, answers in told
    ]
    scored = score_predictions(answered, prompts, 8)
    assert scored["em"].eq(1).all()


def campaign(experiment: Experiment, turn: Turn) -> None:
    """Batch after batch of both."""
    workspace = Workspace(experiment.folder / "fuzz")
    if not (workspace / "tiny.yaml").exists() or not is_current(workspace):
        workspace = experiment.fresh("fuzz")
    renderer, here = PromptRenderer(build_tokenizer(), "chat"), os.getcwd()
    os.chdir(workspace.folder)
    number = 0
    while turn.going:
        if not _has(turn, f"configurations {number}"):
            configurations(workspace, turn, number)
        if turn.going and not _has(turn, f"question files {number}"):
            questions(experiment.folder / "questions", renderer, turn, number)
        number += 1
    os.chdir(here)


def _has(turn: Turn, batch: str) -> bool:
    return any(turn.has(f"{batch}, {outcome}") for outcome in ("refused", "accepted"))
