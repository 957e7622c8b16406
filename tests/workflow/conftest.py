"""A tiny experiment, run once in a session; tests work on it with dry runs, or on copies of it."""

from __future__ import annotations

import fcntl
import logging
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from workspace import DIMS, EXPERIMENT, RESULTS, SCRIPTS, Ended, Workspace, new_workspace, write_f1, write_reader


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """An untrained reader of 32 dimensions in a model directory."""
    return write_reader(tmp_path_factory.mktemp("model") / "reader", tokenizer)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, reader: Path) -> Workspace:
    """The tiny experiment before anything has run. Shared: tests run it dry."""
    return new_workspace(tmp_path_factory.mktemp("fresh"), reader, EXPERIMENT)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, fresh: Workspace) -> Workspace:
    """The tiny experiment after its run, in which both gates failed. Shared, also by processes: tests run it dry."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            workspace = fresh.copy(folder.with_suffix(".unfinished"))
            workspace.succeed()
            workspace.folder.rename(folder)
    return Workspace(folder)


@pytest.fixture
def changed(tmp_path: Path, finished: Workspace) -> Workspace:
    """The test's own copy of the finished experiment."""
    return finished.copy(tmp_path)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, finished: Workspace) -> Workspace:
    """The finished experiment without its Phase 2 and with other scores, on which no gate has decided yet.

    On both splits text has 0.9, Phase 1 has 0.8 at K = 8 and 0.6 at K = 4.
    """
    workspace = finished.copy(tmp_path_factory.mktemp("scored"))
    for evaluation in ("ceiling", "final"):
        write_f1(workspace / f"{RESULTS}/evaluation/{evaluation}/scores.parquet", {"text": 0.9})
    for evaluation in ("phase1", "final"):
        for k, mean in zip(DIMS, (0.8, 0.6), strict=True):
            write_f1(workspace / f"{RESULTS}/evaluation/{evaluation}/scores.parquet", {"phase1": mean}, k)
    for k in DIMS:
        for folder in ("phase2", "control"):
            shutil.rmtree(workspace / f"{RESULTS}/k{k}/seed0/{folder}")
    return workspace


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Runs a program of the workflow in this process, which has loaded the slow libraries already."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    levels = {name: logging.getLogger(name).level for name in list(logging.Logger.manager.loggerDict)}

    def run(name: str, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as done:
            code = int(done.code or 0)
        return Ended(code, *capsys.readouterr())

    yield run
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


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
