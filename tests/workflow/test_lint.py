"""Snakemake's linter finds what docs/decisions/lint.md lists, and nothing else."""

import re

import pytest
from workspace import ROOT, Workspace

pytestmark = pytest.mark.workflow

PAGE = ROOT / "docs/decisions/lint.md"


def findings(output: str) -> set[str]:
    """The titles of the findings, without their lines."""
    titles = re.findall(r"^ {4}\* (.+):$", output, re.MULTILINE)
    return {re.sub(r" in line \d+\.?$", "", title) for title in titles}


def test_the_linter_finds_only_what_is_listed_with_a_reason(fresh: Workspace):
    listed = set(re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed
    assert findings(fresh.fail("--lint")) == listed
