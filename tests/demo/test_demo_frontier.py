"""The page of the demo's frontier is what its commands print, run again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workspace import ROOT, new_workspace

PAGE = ROOT / "docs/frontier-demo.md"
ROW = re.compile(r"^\| `([\w:]+)` \|(.*)\|$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w\[])-?\d+(?:\.\d+)?(?:e-?\d+)?")


def rows(text: str) -> dict[str, list[float]]:
    """Each codec's bits, megabytes, KL, same top token, F1 and retention, without their intervals."""
    return {
        codec: [float(NUMBER.findall(cell)[0]) for cell in cells.split("|")[:6]] for codec, cells in ROW.findall(text)
    }


def test_the_page_is_what_its_commands_print(tmp_path: Path):
    """To the digits shown but for rounding: another processor turns a close answer, one of 120."""
    page = PAGE.read_text(encoding="utf-8")
    configfiles = re.search(r"--configfile (config/\S+) (config/\S+)\n", page).groups()
    workspace = new_workspace(tmp_path, ROOT / "resources/reader", {})
    workspace.succeed("--configfile", *configfiles, configfile=None)
    done = workspace.python("workflow/scripts/frontier.py", "--root", "results/demo-frontier")
    assert done.returncode == 0, done.stderr
    found, expected = rows(done.stdout), rows(page)
    assert list(found) == list(expected) and len(found) > 10
    for codec, own in found.items():
        bits, megabytes, kl, same_top, f1, retention = expected[codec]
        assert own[:2] == [bits, megabytes], codec
        assert own[2] == pytest.approx(kl, rel=0.02), codec
        assert own[3:] == [pytest.approx(value, abs=2.0) for value in (same_top, f1, retention)], codec
    figure = (workspace / "results/demo-frontier/frontier.svg").read_text(encoding="utf-8")
    assert all(
        f">{codec}<" in figure and f">{codec}<" in (ROOT / "docs/frontier-demo.svg").read_text() for codec in found
    )
