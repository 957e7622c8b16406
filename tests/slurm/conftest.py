"""One Slurm cluster for all tests of this folder, and a tiny experiment that asks for GPUs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing
from runs import ONE_K
from transformers import PreTrainedTokenizerFast
from workspace import RESULTS, Workspace, new_workspace, write_reader


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Slurm cluster; its tests are skipped if none can be started, unless one is demanded."""
    if reason := missing():
        demanded = os.environ.get("LATENTWIRE_REQUIRE_SLURM") == "1"
        (pytest.fail if demanded else pytest.skip)(f"no Slurm cluster: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def tiny(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Workspace:
    """The experiment before anything has run. Shared: tests copy it. Without a cluster, nothing is prepared for it."""
    reader = write_reader(tmp_path_factory.mktemp("model") / "reader", tokenizer)
    return new_workspace(tmp_path_factory.mktemp("tiny"), reader, ONE_K)


@pytest.fixture(scope="session")
def prepared(tiny: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The experiment after all that comes before its gate, run locally. Shared: tests copy it."""
    workspace = tiny.copy(tmp_path_factory.mktemp("prepared"))
    workspace.succeed("phase1")
    return workspace


@pytest.fixture(scope="session")
def finished(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The whole experiment, run locally; its gate failed. Shared: tests read it."""
    workspace = prepared.copy(tmp_path_factory.mktemp("finished"))
    workspace.succeed()
    assert (workspace / f"{RESULTS}/k8/seed0/phase2/adapter.safetensors").exists()
    return workspace
