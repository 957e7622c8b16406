"""The same experiment again gives the same bytes, and leaves other experiments alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workspace import RESULTS, Workspace

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_second_run_from_nothing_gives_the_same_bytes_beside_another_experiment(
    fresh: Workspace, finished: Workspace, tmp_path: Path
):
    workspace = fresh.copy(tmp_path)
    other = workspace / "results/other"
    shutil.copytree(finished / RESULTS, other)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in other.rglob("*")}
    workspace.succeed()
    first, second = finished.results(), workspace.results()
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in other.rglob("*")} == before
