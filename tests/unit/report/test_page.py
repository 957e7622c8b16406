"""The report's page: what it names, and that its tables fit on paper and on a telephone."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from latentwire.arms_table import ARMS
from latentwire.report.page import _template
from latentwire.report.tables import Table, criteria_table, outcomes_table, scores_table, splits_table
from latentwire.report.verdict_text import TWO_RATES, gate_kl, percent

COMMIT = "0123456789abcdef0123456789abcdef01234567-dirty"


def value(estimate):
    return {"estimate": estimate, "lower": estimate - 0.02, "upper": estimate + 0.02}


def entry():
    own = {name: value(0.5) for name in ("f1", "em", "difference_to_text", "retention")}
    own["rate"] = {"bits_per_parameter": 2.61, "megabytes": 1.23, "megabytes_by_dtype": {"bf16": 1.2, "f32": 0.03}}
    return {
        "k": 16,
        "bits_per_token": {"ratio": 8, "code": 256, "embedding": 2048, "token_id": 11.9},
        "role": "primary",
        "chosen": "phase2",
        "outcome": "failed",
        "wording": "not validated: F1 50.0%",
        "f1": value(0.5),
        "agrees_with_gate": True,
        "gate": {"reading": "failing", "f1": value(0.4), "kl": value(3.2), "same_top": value(0.3), "straddles": []},
        "arms": {
            arm: own | {"counts": {"empty": 1, "length_capped": 2, "degenerate": 3, "wrapped": 4}} for arm in ARMS
        },
        "criteria": [
            {
                "criterion": "F1",
                "threshold": ">= 0.7",
                "value": 0.5,
                "interval": value(0.5),
                "passed": False,
                "note": "",
            }
        ],
        "causes": [{"cause": "adapter too small", "reading": "a reading", "command": ".venv/bin/snakemake -n"}],
        "next": {"why": "adapter too small?", "command": ".venv/bin/snakemake --next"},
        "instead": {"why": "quant reaches <F1> 80.0%", "command": ".venv/bin/snakemake --instead"},
    }


@pytest.fixture(scope="module")
def page():
    found = entry()
    verdict = {
        "experiment": "demo",
        "date": "2026-11-24",
        "commit": COMMIT,
        "wording": found["wording"],
        "confirmatory": True,
        "warnings": ["a <warning>"],
        "ceiling": {"override": False, "arms": {"text": {"f1": value(0.9)}}},
        "entries": [found],
    }
    example = Table(("prompt", "references", "text"), [("<b>bold</b> & more", "yes | no", "")])
    manifest = {"splits": {"final": {"articles": 30, "questions": 900, "tokens": 9000, "sha256": "ab" * 32}}}
    return _template().render(
        verdict=verdict,
        model="owner/model at revision abc",
        data="owner/squad at revision def",
        outcomes=outcomes_table(verdict),
        kept=["Keeps 99%? Not shown: quant:16."],
        figures={16: {"arms": "<svg/>", "curves": "<svg/>"}},
        tables={16: {"arms": scores_table(found), "criteria": criteria_table(found), "examples": example}},
        spectrum="<svg/>",
        splits=splits_table(manifest),
        versions=Table(("package", "version"), [("torch", "2.13.0")]),
        times=Table(("job", "seconds"), [("k16/predictions.jsonl", "1.5")], ("seconds",)),
        percent=percent,
        gate_kl=gate_kl,
        two_rates=TWO_RATES.replace("*", ""),
    )


def test_it_names_model_data_date_and_commit(page):
    for name in ("owner/model at revision abc", "owner/squad at revision def", "2026-11-24", COMMIT):
        assert name in page


def test_it_says_what_each_rate_is_good_for_in_the_readmes_words(page):
    said = TWO_RATES.replace("*", "")
    assert said in unescape(page)
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert TWO_RATES in " ".join(readme.split())


def test_the_gates_kl_stands_beside_its_f1(page):
    said = "KL 3.2 [3.18, 3.22] nats and same top token 30.0 [28.0, 32.0]% at prompt positions"
    assert f"Gate: failing at F1 40.0 [38.0, 42.0]%, {said}." in page


def test_every_arm_has_its_legend(page):
    for arm, legend in ((name, arm.legend) for name, arm in ARMS.items()):
        assert f">{arm}<small>{legend}</small>" in unescape(page)


def test_every_cell_has_its_head_for_screens_that_are_too_narrow_for_a_row(page):
    cells, bare = re.findall(r"<td[ >]", page), re.findall(r"<td(?![^>]*data-head=\"[^\"]+\")[ >]", page)
    assert len(cells) > 100 and not bare
    assert re.search(r"@media screen and \(max-width: \d+rem\) \{\s*thead \{ display: none; \}", page)


def test_nothing_is_cut_off_or_scrolled(page):
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "nowrap" not in style and "overflow-x" not in style and "overflow: hidden" not in style
    assert "@media print" in style and "white-space: pre-wrap" in style


def test_what_comes_from_data_is_escaped_and_what_comes_next_is_said(page):
    assert '<p class="warning">a &lt;warning&gt;.</p>' in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in page and "<b>bold" not in page
    assert "<pre>.venv/bin/snakemake --next</pre>" in page
    assert "<p>Instead: quant reaches &lt;F1&gt; 80.0%.</p>\n<pre>.venv/bin/snakemake --instead</pre>" in page
    assert "<li>Keeps 99%? Not shown: quant:16.</li>" in page
