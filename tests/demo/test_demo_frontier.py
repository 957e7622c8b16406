"""The page of the demo's frontier is what its commands print, run again."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from workspace import ROOT, Workspace, new_workspace

PAGE = ROOT / "docs/frontier-demo.md"
RESULTS = "results/demo-frontier"
ROW = re.compile(r"^\| `([\w:]+)` \|(.*)\|$", re.MULTILINE)
# Which codec to take at which rate.
METHOD = re.compile(r"^\| (\d) \| `([\w:]+)` \|(.*)\|$", re.MULTILINE)
HEADS = re.compile(r"^\| codec \| .*$", re.MULTILINE)
SUMMARY = re.compile(r"^\d+ questions in .*$", re.MULTILINE)
NUMBER = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?(?:e-?\d+)?")
# Names of an SVG's parts, which are hashes of their coordinates.
PART = re.compile(r'(id="|href="#|url\(#)\w+')
# Two points of F1, or a line of labels.
FIGURE_POINTS = 10.0


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def is_close(found: str, expected: str, **tolerance: float) -> bool:
    """The same words, and numbers within a tolerance."""
    same_words = NUMBER.sub("#", found) == NUMBER.sub("#", expected)
    return same_words and numbers(found) == pytest.approx(numbers(expected), **tolerance)


def rows(text: str) -> dict[str, list[str]]:
    """Each codec's cells, from its bits to the times that it takes, which differ from run to run."""
    return {codec: [cell.strip() for cell in cells.split("|")] for codec, cells in ROW.findall(text)}


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def workspace(page: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo's frontier, run by the page's first command."""
    configfiles = re.search(r"--configfile (config/\S+) (config/\S+)\n", page).groups()
    workspace = new_workspace(tmp_path_factory.mktemp("demo"), ROOT / "resources/reader", {})
    workspace.succeed("--configfile", *configfiles, configfile=None)
    return workspace


@pytest.fixture(scope="module")
def printed(workspace: Workspace) -> str:
    """What the page's second command prints."""
    done = workspace.python("workflow/scripts/frontier.py", "--root", RESULTS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_is_what_its_commands_print(page: str, printed: str):
    """To the digits shown but for rounding: another processor turns a close answer, one of 120."""
    assert HEADS.search(printed).group() == HEADS.search(page).group()
    found, expected = rows(printed), rows(page)
    assert list(found) == list(expected) and len(found) > 10
    turned = []
    for codec, (bits, megabytes, kl, same_top, *answers, pareto, reaches, keeps, keeps_more, _, _) in found.items():
        own = expected[codec]
        assert [bits, megabytes] == own[:2], codec
        assert is_close(kl, own[2], rel=0.02), codec
        assert is_close(same_top, own[3], abs=2.0), codec
        assert pareto == own[6], codec
        if [numbers(cell)[0] for cell in answers] == [numbers(cell)[0] for cell in own[4:6]]:
            assert all(is_close(*cells, abs=2.0) for cells in zip(answers, own[4:6], strict=True)), codec
            assert reaches == own[7], codec
            assert all(is_close(*cells, abs=0.02) for cells in zip((keeps, keeps_more), own[8:10], strict=True)), codec
        else:  # with the answer its interval, whether it has one, and what is shown may change
            turned.append(codec)
            assert [numbers(cell)[0] for cell in answers] == [
                pytest.approx(numbers(cell)[0], abs=2.0) for cell in own[4:6]
            ], codec
    methods = [METHOD.findall(text) for text in (printed, page)]
    assert [row[:2] for row in methods[0]] == [row[:2] for row in methods[1]] and len(methods[0]) == 4
    assert all(is_close(own[2], other[2], rel=0.02) for own, other in zip(*methods, strict=True))
    if not turned:
        summary = [SUMMARY.search(text).group() for text in (printed, page)]
        assert is_close(*summary, abs=2.0)


def interval_numbers(interval: dict[str, Any]) -> list[float]:
    return [interval[name] for name in ("estimate", "lower", "upper")]


@pytest.fixture(scope="module")
def entry(workspace: Workspace) -> dict[str, Any]:
    """The verdict on the demo's only code dimension."""
    (entry,) = json.loads((workspace / RESULTS / "verdict/verdict.json").read_text(encoding="utf-8"))["entries"]
    return entry


def quoted(page: str, pattern: str) -> list[float]:
    """The numbers of the sentences that match; their lines may break anywhere."""
    return numbers(re.search(pattern, " ".join(page.split())).group(1))


def test_the_numbers_of_the_error_figures_text_are_the_verdicts(page: str, entry: dict[str, Any]):
    (harm,) = entry["harm_of_error"]
    factors = [*map(interval_numbers, (harm["total"], harm["allocation"], harm["direction"], harm["shrinkage"]))]
    assert quoted(page, r"KL of PCA is (.*?)\. Two draws") == pytest.approx(sum(factors, []), rel=0.02, abs=0.06)
    assert harm["codec"] == "pca" and harm["draws"] == 2
    assert quoted(page, r"KL differs between them by (\d+)%") == [pytest.approx(100 * harm["draw_deviation"], abs=1)]


def test_the_quoted_rank_correlations_are_the_verdicts(page: str, entry: dict[str, Any]):
    predictive = entry["predictive"]
    of_kl = {own["measure"]: interval_numbers(own["kl"]) for own in predictive["measures"]}
    expected = [*of_kl["FVU"], *of_kl["1 − cosine"], *of_kl["error of what the first layer reads"]]
    sentence = r"rank correlation of KL with FVU is (.*?), with 1 − cosine (.*?), and .* first layer reads (.*?)\.$"
    found = re.search(sentence, " ".join(page.split())).groups()
    # Two codecs that change places move a correlation over twelve by 0.007.
    assert sum(map(numbers, found), []) == pytest.approx(expected, abs=0.01)
    assert quoted(page, r"Over these (\d+) codecs") == [len(predictive["arms"])]


@pytest.mark.parametrize("name", ["frontier", "frontier-error"])
def test_the_figures_are_drawn_again(name: str, workspace: Workspace, printed: str):
    """The same parts at the same places; coordinates differ in their last digits from processor to processor."""
    of_page = (PAGE.parent / f"{name.replace('frontier', 'frontier-demo')}.svg").read_text(encoding="utf-8")
    own = (workspace / RESULTS / f"{name}.svg").read_text(encoding="utf-8")
    assert is_close(PART.sub(r"\1", own), PART.sub(r"\1", of_page), abs=FIGURE_POINTS)
