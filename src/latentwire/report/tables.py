"""The report's tables, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.report.verdict_text import percent, rate
from latentwire.results import DimensionVerdict, Verdict


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        heads: of the columns; on a narrow screen each cell has its own.
        rows: cells.
        numbers: columns of numbers.
        notes: a line under each row's first cell, if there are any.
    """

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _unbroken(interval: str) -> str:
    """An interval that a line may break only before its bracket."""
    return interval.replace(", ", ",\u00a0")


def outcomes_table(verdict: Verdict) -> Table:
    """An outcome for each code dimension."""
    rows = [
        (
            str(entry["k"]),
            f"{entry['bits_per_token']['ratio']:g}×",
            entry["role"],
            entry["chosen"],
            _unbroken(percent(entry["f1"])),
            entry["outcome"],
            entry["wording"],
        )
        for entry in verdict["entries"]
    ]
    return Table(("K", "compression", "role", "chosen arm", "F1 %", "outcome", "reading"), rows, ("F1 %",))


def scores_table(entry: DimensionVerdict) -> Table:
    """Every arm, with what the language model reads."""
    arms = ordered_arms(entry["arms"])
    heads = (
        "arm",
        "bits per table parameter",
        "F1 %",
        "EM %",
        "difference to text",
        "retention %",
        "empty",
        "capped",
        "degenerate",
        "wrapped",
    )
    rows = []
    for arm in arms:
        own = entry["arms"][arm]
        intervals = (_unbroken(percent(own[name])) for name in ("f1", "em", "difference_to_text", "retention"))
        counts = (str(own["counts"][name]) for name in ("empty", "length_capped", "degenerate", "wrapped"))
        rows.append((arm, rate(own), *intervals, *counts))
    return Table(heads, rows, heads[1:], tuple(arm_row(arm).legend for arm in arms))


def criteria_table(entry: DimensionVerdict) -> Table:
    """The plan's criteria."""
    rows = []
    for found in entry["criteria"]:
        value, interval = f"{found['value']:.4g}", found["interval"]
        if interval and interval["lower"] is not None:
            value += f" [{interval['lower']:.4g}, {interval['upper']:.4g}]"
        result = "pass" if found["passed"] else "fail"
        rows.append((found["criterion"], str(found["threshold"]), _unbroken(value), result, found["note"]))
    return Table(("criterion", "threshold", "value", "result", "note"), rows, ("value",))


def splits_table(manifest: dict[str, Any]) -> Table:
    """What is in the splits."""
    heads = ("split", "articles", "questions", "tokens", "sha256")
    rows = [
        (name, *(str(split[count]) for count in heads[1:4]), split["sha256"][:16])
        for name, split in manifest["splits"].items()
    ]
    return Table(heads, rows, heads[1:4])
