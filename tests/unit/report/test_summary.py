"""The verdict in a screenful, as a run ends with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire.report.summary import summarise_verdict

ROOT = Path(__file__).parents[3]


def value(estimate, lower=None, upper=None):
    return {"estimate": estimate, "lower": lower, "upper": upper}


def entry(k):
    return {
        "k": k,
        "bits_per_token": {"ratio": 128 / k},
        "chosen": "phase2",
        "outcome": "failed",
        "threshold": 0.7,
        "wording": "not validated: F1 30.3% [28.0, 32.9]",
        "f1": value(0.303, 0.28, 0.329),
        "gate": {"reading": "failing"},
        "arms": {"text": {"f1": value(0.904, 0.874, 0.925)}},
        "next": {"why": "adapter too small?", "command": ".venv/bin/snakemake --config experiment=demo-k16-wider"},
    }


def verdict(*dims, confirmatory=True, override=False, **primary):
    entries = [entry(k) for k in dims]
    entries[0] |= primary
    return {
        "experiment": "demo",
        "model": {"path": "owner/model", "revision": "abc"},
        "data": {"source": "hub", "path": "owner/squad", "revision": "def"},
        "date": "2026-11-24",
        "commit": None,
        "confirmatory": confirmatory,
        "ceiling": {"override": override},
        "kept": [{"share": 0.99, "cheapest": "quant:16", "bits": {"quant:16": 2.03}}],
        "entries": entries,
    }


def test_it_has_the_question_the_answer_and_what_they_rest_on():
    assert summarise_verdict(verdict(16, 8), "results/demo") == [
        "Question   does owner/model at revision abc still answer when its prompt is compressed 8x? Data: owner/squad at revision def",
        "Answer     not validated: F1 30.3% [28.0, 32.9] (8x, K = 16, arm phase2)",
        "Threshold  F1 70%, for the whole 95% interval",
        "Ceiling    F1 90.4 [87.4, 92.5]% of the uncompressed text",
        "8x         F1 30.3 [28.0, 32.9]%: phase2, gate failing, failed",
        "16x        F1 30.3 [28.0, 32.9]%: phase2, gate failing, failed",
        "Cheapest   quant:16 keeps 99% of the text's F1, at 2.03 bits per table parameter",
        "Next       adapter too small?",
        "           .venv/bin/snakemake --config experiment=demo-k16-wider",
        "Verdict    results/demo/verdict/verdict.md",
        "Report     results/demo/report.html",
    ]


def test_it_is_never_longer_than_fifteen_lines():
    lines = summarise_verdict(verdict(64, 32, 16, 8, 4, 2, confirmatory=False, override=True), "results/demo")
    assert len(lines) <= 15
    assert "Weakness   the ceiling check is overridden; not confirmatory: final was read before" in lines
    assert "           and 2 more, in the verdict" in lines


def test_no_command_is_proposed_where_there_is_none():
    lines = summarise_verdict(verdict(16, next={"why": "another model first", "command": None}), "results/demo")
    assert lines[-3:-1] == ["Next       another model first", "Verdict    results/demo/verdict/verdict.md"]


@pytest.mark.parametrize("there", [True, False])
def test_the_program_prints_it_or_says_that_there_is_no_verdict(tmp_path, there):
    file = tmp_path / "results/mine/verdict/verdict.json"
    if there:
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(verdict(16)))
    done = subprocess.run(
        [sys.executable, ROOT / "workflow/scripts/summarise.py", "--verdict", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if there else 1)
    if there:
        assert done.stdout.splitlines() == summarise_verdict(verdict(16), str(tmp_path / "results/mine"))
    else:
        assert "the experiment has no verdict yet" in done.stderr and "Traceback" not in done.stderr
