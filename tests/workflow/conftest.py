"""A tiny experiment, run once in a session; tests work on it with dry runs, or on copies of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast
from workspace import DIMS, EXPERIMENT, RESULTS, ROOT, SOURCES, Workspace

from latentwire.demo.reader import ReaderSettings, build_reader


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """An untrained reader of 32 dimensions in a model directory."""
    folder = tmp_path_factory.mktemp("model") / "reader"
    model = build_reader(ReaderSettings(width=32, heads=4, layers=1, mlp_width=32), tokenizer)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)  # wide enough for its answers to depend on the prompt
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, reader: Path) -> Workspace:
    """The tiny experiment before anything has run. Shared: tests run it dry."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / name)
    # Both where the tiny experiment looks for it and where the demo does.
    for place in ("reader", "resources/reader"):
        shutil.copytree(reader, folder / place)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    return Workspace(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, fresh: Workspace) -> Workspace:
    """The tiny experiment after its run, in which both gates failed. Shared: tests run it dry."""
    workspace = fresh.copy(tmp_path_factory.mktemp("finished"))
    workspace.succeed()
    return workspace


@pytest.fixture
def changed(tmp_path: Path, finished: Workspace) -> Workspace:
    """The test's own copy of the finished experiment."""
    return finished.copy(tmp_path)


def write_f1(file: Path, means: dict[str, float]) -> None:
    """Give arms the F1 of so many right answers."""
    scores = pd.read_parquet(file)
    for arm, mean in means.items():
        own = scores.index[scores["arm"] == arm]
        scores.loc[own, "f1"] = [float(number < round(mean * len(own))) for number in range(len(own))]
    scores.to_parquet(file, index=False)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, finished: Workspace) -> Workspace:
    """The finished experiment without its Phase 2 and with other scores, on which no gate has decided yet.

    On both splits text has 0.9, Phase 1 has 0.8 at K = 8 and 0.6 at K = 4.
    """
    workspace = finished.copy(tmp_path_factory.mktemp("scored"))
    for split in ("gate", "final"):
        write_f1(workspace / f"{RESULTS}/original/{split}/scores.parquet", {"text": 0.9})
        for k, mean in zip(DIMS, (0.8, 0.6), strict=True):
            write_f1(workspace / f"{RESULTS}/k{k}/seed0/evaluate_phase1/{split}/scores.parquet", {"phase1": mean})
    for k in DIMS:
        for folder in ("phase2", "control", "evaluate_phase2"):
            shutil.rmtree(workspace / f"{RESULTS}/k{k}/seed0/{folder}")
    return workspace


GATES = {
    "pass": "gate={threshold: 0.55, failing: 0.5}",
    "mixed": "gate={threshold: 0.7, failing: 0.65}",
    "fail": "gate={threshold: 0.85, failing: 0.7}",
}


@pytest.fixture(scope="session")
def decided(tmp_path_factory: pytest.TempPathFactory, scored: Workspace) -> Callable[[str], tuple[Workspace, str]]:
    """``scored`` after its gates have decided: ``pass``, ``fail``, or ``mixed`` (K = 8 passes, K = 4 does not).

    Gives the workspace and the setting of its gates, for ``--config``. Shared: tests run it dry.
    """
    done: dict[str, Workspace] = {}

    def decide(outcome: str) -> tuple[Workspace, str]:
        if outcome not in done:
            done[outcome] = scored.copy(tmp_path_factory.mktemp(outcome))
            done[outcome].succeed("gate", "--config", GATES[outcome])
        return done[outcome], GATES[outcome]

    return decide
