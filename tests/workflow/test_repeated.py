"""The same experiment again gives the same bytes, in a folder of any name, and leaves other experiments alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from workspace import RESULTS, Workspace

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_second_run_from_nothing_gives_the_same_bytes_beside_another_experiment(
    fresh: Workspace, finished: Workspace, tmp_path: Path
):
    workspace = fresh.copy(tmp_path / "it's $HOME; a {k} & b [0-9]*")
    other = workspace / "results/other"
    shutil.copytree(finished / RESULTS, other)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in other.rglob("*")}
    workspace.succeed()
    first, second = finished.results(), workspace.results()
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in other.rglob("*")} == before


def test_the_verdict_and_the_report_name_model_data_day_and_commit(finished: Workspace):
    verdict = json.loads((finished / f"{RESULTS}/verdict/verdict.json").read_text())
    assert verdict["model"] == {"path": "./reader", "revision": None, "made_from": None}
    assert verdict["data"]["source"] == "demo"
    # The day that workspaces are given; their copy of the code is in no checkout.
    assert (verdict["date"], verdict["commit"]) == ("2025-11-24", None)
    named = "Model `./reader`; data the embedded corpus; 2025-11-24; not from a git checkout."
    assert named in (finished / f"{RESULTS}/verdict/verdict.md").read_text()
    assert "2025-11-24;\nnot from a git checkout." in (finished / f"{RESULTS}/report.html").read_text()
