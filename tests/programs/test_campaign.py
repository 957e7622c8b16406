"""A campaign's trials are written at once, found again, and counted."""

import ast
import json
from importlib import import_module
from pathlib import Path

import pytest
import reports
from ledger import Ledger, Turn
from reports import REPORTS, outcomes


def test_a_campaign_continues_where_it_was_killed(tmp_path):
    path = tmp_path / "folder/trials.jsonl"
    first = Ledger(path, 3)
    first.add("kills", "signal 0", "SIGKILL to group", "ended by the signal")
    first.add("fuzz", "configurations 0", "configurations", "refused", count=250)
    with path.open("a") as output:
        output.write('{"campaign": "kills", "tri')
    second = Ledger(path, 3)
    assert second.has("kills", "signal 0") and not second.has("kills", "signal 1")
    second.add("kills", "signal 1", "SIGINT to group", "traceback", "x" * 5000)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["trial"] for row in rows] == ["signal 0", "configurations 0", "signal 1"]
    assert {row["seed"] for row in rows} == {3} and len(rows[2]["detail"]) == 2000
    assert [row["trial"] for row in second.wrong("kills")] == ["signal 1"] and second.wrong("fuzz") == []


def test_the_table_counts_kinds_by_outcomes_with_what_is_wrong_last(tmp_path):
    ledger = Ledger(tmp_path / "trials.jsonl", 0)
    ledger.add("damage", "a", "cut", "silent")
    ledger.add("damage", "b", "cut", "refused")
    ledger.add("damage", "c", "emptied", "refused", count=3)
    ledger.add("fuzz", "d", "files", "refused")
    assert ledger.table("damage").splitlines() == [
        "|  | refused | silent | trials |",
        "| --- | --- | --- | --- |",
        "| cut | 1 | 1 | 2 |",
        "| emptied | 3 | 0 | 3 |",
        "| all | 4 | 1 | 5 |",
    ]


def test_a_trial_is_drawn_again_as_it_was(tmp_path):
    turns = [Turn(Ledger(tmp_path / "trials.jsonl", seed), "kills", 0) for seed in (0, 0, 1)]
    first, same, other = (turn.generator("signal 7").random() for turn in turns)
    assert first == same != other and not turns[0].going


@pytest.mark.parametrize("campaign", ["kills", "damage", "faults", "fuzz", "configurations", "reports"])
def test_every_campaign_can_be_asked_for(campaign):
    assert callable(import_module(campaign).campaign)


def test_every_reported_kind_has_tests_that_are_there_and_the_page_names_them():
    tests = Path(__file__).parents[1]
    for files in REPORTS.values():
        for file, names in files.items():
            own = {
                part.name for part in ast.parse((tests / file).read_text()).body if isinstance(part, ast.FunctionDef)
            }
            assert own >= {*names}
    assert reports.table() in (tests.parent / "docs/campaign.md").read_text()


def test_a_reports_cases_are_counted_by_how_they_end(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_own.py").write_text(
        "import pytest\n@pytest.mark.parametrize('value', [1, 2])\ndef test_one(value): assert value == 1\n"
    )
    monkeypatch.setattr(reports, "ROOT", tmp_path)
    found = [*outcomes({"test_own.py": ("test_one",)}, tmp_path / "report.xml")]
    assert [row[:2] for row in found] == [("test_one[1]", "right"), ("test_one[2]", "differs")]
    assert "assert 2 == 1" in found[1][2]
    ((name, outcome, detail),) = outcomes({"test_gone.py": ("test_one",)}, tmp_path / "other.xml")
    assert (name, outcome) == ("none", "unclear") and "file or directory not found" in detail
