"""Two folders of results compared: every planted change is named, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from latentwire.files import read_json, write_json, write_jsonl, write_text
from latentwire.report.comparison import differences


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A folder with a file of each kind."""
    root = tmp_path / "first"
    (root / "k8/seed0/phase1").mkdir(parents=True)
    save_file(
        {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}, root / "k8/seed0/phase1/adapter.safetensors"
    )
    frame = pd.DataFrame({"id": ["a", "b"], "f1": [0.5, float("nan")], "ids": [[1, 2], [3]]})
    frame["k"] = pd.array([None, 8], dtype="Int64")
    frame.to_parquet(root / "scores.parquet", index=False)
    write_jsonl(root / "predictions.jsonl", [{"id": "a", "prediction": "x"}, {"id": "b", "prediction": "y"}])
    write_json(root / "verdict/verdict.json", {"date": "2025-01-01", "entries": [{"k": 8, "f1": {"estimate": 0.5}}]})
    write_text(root / "pca/spectrum.tsv", "k\teigenvalue\n1\t2.0\n")
    write_text(root / "logs/run.log", "one")
    return root


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(first, tmp_path / "second")


def test_equal_results_do_not_differ(first: Path, second: Path):
    assert differences(first, second) == []


def test_what_differs_between_any_two_runs_does_not_count(first: Path, second: Path):
    write_text(second / "logs/run.log", "two")
    write_text(second / "scores.parquet.provenance.json", "{}")
    verdict = read_json(second / "verdict/verdict.json")
    write_json(second / "verdict/verdict.json", verdict | {"date": "2026-01-01"})
    # Another writer of the same rows and tensors.
    pd.read_parquet(second / "scores.parquet").to_parquet(second / "scores.parquet", index=False, compression="gzip")
    assert differences(first, second) == []


def change_tensor(root: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    weight[1, 2] += 0.25
    save_file({"weight": weight, "bias": torch.ones(2)}, root / "k8/seed0/phase1/adapter.safetensors")


def change_row(root: Path) -> None:
    frame = pd.read_parquet(root / "scores.parquet")
    frame.loc[0, "f1"] = 0.25
    frame.to_parquet(root / "scores.parquet", index=False)


def change_missing(root: Path) -> None:
    frame = pd.read_parquet(root / "scores.parquet")
    frame.loc[0, "k"] = 8
    frame.to_parquet(root / "scores.parquet", index=False)


def change_line(root: Path) -> None:
    write_jsonl(root / "predictions.jsonl", [{"id": "a", "prediction": "x"}, {"id": "b", "prediction": "z"}])


def change_value(root: Path) -> None:
    write_json(root / "verdict/verdict.json", {"date": "2025-01-01", "entries": [{"k": 8, "f1": {"estimate": 0.6}}]})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (change_tensor, "k8/seed0/phase1/adapter.safetensors: tensor weight differs by 0.25 at most"),
        (change_row, "scores.parquet: column f1 differs in 1 of 2 rows, first in row 0"),
        (change_missing, "scores.parquet: column k differs in 1 of 2 rows, first in row 0"),
        (change_line, "predictions.jsonl: 1 of 2 lines differ, the first is line 2"),
        (change_value, "verdict/verdict.json: entries.0.f1.estimate is 0.5 and 0.6"),
        (lambda root: write_text(root / "pca/spectrum.tsv", "k\n"), "pca/spectrum.tsv: other bytes (19 and 2)"),
        (lambda root: write_text(root / "scores.parquet", "spoilt"), "scores.parquet: can't be compared: "),
    ],
)
def test_a_change_is_named_with_its_place(first: Path, second: Path, change, line: str):
    change(second)
    (found,) = differences(first, second)
    assert found.startswith(line)


def test_a_moved_file_is_no_difference_a_missing_one_is(first: Path, second: Path):
    (second / "scores.parquet").rename(second / "pca/scores.parquet")
    assert differences(first, second) == []
    (second / "pca/scores.parquet").unlink()
    (first / "pca/spectrum.tsv").unlink()
    assert differences(first, second) == [f"scores.parquet: only in {first}", f"pca/spectrum.tsv: only in {second}"]
