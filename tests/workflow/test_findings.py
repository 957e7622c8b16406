"""The findings of a finished experiment as tables, and how far a run is."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import pandas as pd
import pytest
from preloaded import preloaded_python
from workspace import DIMS, RESULTS, Workspace, rerecord

from latentwire.files import read_json
from latentwire.progress import finished_jobs, progress, stage_of
from latentwire.report.findings import _cell

pytestmark = pytest.mark.workflow


def printed(workspace: Workspace) -> str:
    done = workspace.python("workflow/scripts/findings.py", "--root", RESULTS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_findings_quote_the_verdict(finished: Workspace):
    text = printed(finished)
    verdict = read_json(finished / f"{RESULTS}/verdict/verdict.json")
    for entry in verdict["entries"]:
        for arm in entry["arms"]:
            assert re.search(rf"^\| `{arm}` \| ", text, re.MULTILINE)
        fvu = entry["reconstruction"][entry["chosen"]]["all"]["fvu"]
        assert re.search(rf"^\| `{entry['chosen']}` \| {entry['k']} \| {fvu:.3f} \| ", text, re.MULTILINE)
    assert text.count("| | difference in F1 (points) | KL at prompt positions, over the other's |") == len(DIMS)


def test_failures_are_those_that_the_text_answers_and_the_chosen_arm_does_not(changed: Workspace):
    path = changed / f"{RESULTS}/evaluation/final/scores.parquet"
    scores = pd.read_parquet(path)
    scores["em"] = 0.0
    scores.loc[(scores["arm"] == "text") & (scores["id"] == scores["id"].iloc[0]), "em"] = 1.0
    scores.to_parquet(path, index=False)
    rerecord(path)
    text = printed(changed)
    assert "1 questions that `text` answers exactly and `phase2` does not" in text


def test_text_of_a_data_set_breaks_no_table():
    assert _cell("a | b\n<script>") == r"a \| b \<script\>"


def test_a_finished_run_has_nothing_left(finished: Workspace):
    root = Path(finished / RESULTS)
    jobs = finished_jobs(root)
    assert {"preparation", "ceiling", "Phase 1", "gate", "Phase 2", "reconstruction", "final validation"} == set(
        map(stage_of, jobs)
    )
    assert progress(root, jobs, parallel=2).minutes_left == 0


def test_a_run_is_followed_to_its_end_and_a_failure_is_told(fresh: Workspace, tmp_path: Path):
    workspace = fresh.copy(tmp_path)
    follow = ["workflow/scripts/follow.py", "--root", RESULTS, "--every", "0.2", "--durations", "durations.tsv"]
    follow += ["--record", "--", preloaded_python(), "-m", "snakemake", "--cores", "2"]
    done = workspace.python(*follow, "--configfile", "tiny.yaml", "--until", "count_tokens")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\d:\d\d preparation: \d jobs done; how long is left is not known", done.stdout)
    assert "pca/token_counts.safetensors" in (workspace / "durations.tsv").read_text()
    # What a Snakemake that was killed leaves behind, and one that is alive.
    (workspace / ".snakemake/locks").mkdir(parents=True, exist_ok=True)
    (workspace / ".snakemake/locks/0.output.lock").write_text(f"{RESULTS}/pca/pca.safetensors\n")
    done = workspace.python(*follow, "--configfile", "tiny.yaml", "--until", "fit_pca")
    assert done.returncode == 0 and (workspace / f"{RESULTS}/pca/pca.safetensors").exists(), done.stderr
    with (workspace / f"{RESULTS}/snakemake.log").open("a") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        refused = workspace.python(*follow, "--configfile", "tiny.yaml")
    assert refused.returncode == 1 and "running already" in refused.stderr
    failed = workspace.python(*follow, "--configfile", "none.yaml")
    assert failed.returncode == 1 and "none.yaml" in failed.stderr and "snakemake.log" in failed.stderr


def test_the_verdict_and_the_report_name_model_data_day_and_commit(finished: Workspace):
    verdict = read_json(finished / f"{RESULTS}/verdict/verdict.json")
    assert verdict["model"] == {"path": "./reader", "revision": None, "made_from": None}
    assert verdict["data"]["source"] == "demo"
    # The day that workspaces are given; their copy of the code is in no checkout.
    assert (verdict["date"], verdict["commit"]) == ("2025-11-24", None)
    named = "Model `./reader`; data the embedded corpus; 2025-11-24; not from a git checkout."
    assert named in (finished / f"{RESULTS}/verdict/verdict.md").read_text()
    assert "2025-11-24;\nnot from a git checkout." in (finished / f"{RESULTS}/report.html").read_text()
