"""Reads one experiment's results into the tables that a verdict is made of. No thresholds, no decisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latentwire.arms_table import GROUP_ARMS
from latentwire.decisions.gate import question_means
from latentwire.files import read_json, read_jsonl
from latentwire.layout import Layout


@dataclass(frozen=True)
class ArmScores:
    """One arm on ``final``: per-question means over seeds, the seeds' deviation, and all seeds' rows."""

    f1: pd.DataFrame
    em: pd.DataFrame
    f1_seed_deviation: float | None
    rows: pd.DataFrame
    seeds: int


@dataclass(frozen=True)
class DimensionResults:
    """Everything the verdict on one code dimension needs.

    Attributes:
        k: the code dimension.
        gate: the gate's evidence.
        run_phase2: the gate's decision.
        arms: scores on ``final`` by arm.
        reconstruction: sums a question on ``gate``, averaged over seeds, by arm and subset.
        summaries: training summaries by arm, one a seed.
        histories: diagnostics by arm, one per seed.
        seeds: training seeds at this code dimension.
    """

    k: int
    gate: dict[str, Any]
    run_phase2: bool
    arms: dict[str, ArmScores]
    reconstruction: dict[tuple[str, str], pd.DataFrame]
    summaries: dict[str, list[dict[str, Any]]]
    histories: dict[str, list[list[dict[str, Any]]]]
    seeds: list[int]


def read_dimension(paths: Layout, k: int, seeds: list[int], *, linear: bool) -> DimensionResults:
    """The results at one code dimension; Phase 2's only where its gate asked for it.

    Args:
        paths: of the experiment.
        k: the code dimension.
        seeds: training seeds.
        linear: whether arms of the group ``linear`` are part of the experiment.
    """
    run_phase2 = bool(read_json(paths.gate(k, "decision"))["run_phase2"])
    stages = ("phase1", "phase2") if run_phase2 else ("phase1",)
    untrained = ("original", "linear") if linear else ("original",)
    per_seed = [[pd.read_parquet(paths.scores(group, "final", k))] for group in untrained]
    per_seed += [[pd.read_parquet(paths.scores(stage, "final", k, seed)) for seed in seeds] for stage in stages]
    arms: dict[str, ArmScores] = {}
    for tables in per_seed:
        for arm in tables[0]["arm"].unique():
            arms[str(arm)] = _arm_scores([table[table["arm"] == arm].reset_index(drop=True) for table in tables])
    trained = [arm for stage in stages for arm in GROUP_ARMS[stage] if arm in arms]
    folders = {arm: [Path(paths.training(k, seed, arm)) for seed in seeds] for arm in trained}
    return DimensionResults(
        k=k,
        gate=read_json(paths.gate(k, "evidence")),
        run_phase2=run_phase2,
        arms=arms,
        reconstruction=_reconstruction([[paths.reconstruction(k, seed, stage) for seed in seeds] for stage in stages]),
        summaries={arm: [read_json(folder / "summary.json") for folder in own] for arm, own in folders.items()},
        histories={arm: [read_jsonl(folder / "diagnostics.jsonl") for folder in own] for arm, own in folders.items()},
        seeds=seeds,
    )


def _arm_scores(tables: list[pd.DataFrame]) -> ArmScores:
    f1, deviation = question_means(tables, "f1")
    em, _ = question_means(tables, "em")
    return ArmScores(f1, em, deviation, pd.concat(tables, ignore_index=True), len(tables))


def _reconstruction(stage_files: list[list[str]]) -> dict[tuple[str, str], pd.DataFrame]:
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for files in stage_files:
        tables = [pd.read_parquet(file) for file in files]
        for (arm, subset), first in tables[0].groupby(["arm", "subset"], sort=False):
            own = [t[(t["arm"] == arm) & (t["subset"] == subset)].reset_index(drop=True) for t in tables]
            numbers = first.select_dtypes("number").columns
            mean = np.mean([table[numbers].to_numpy() for table in own], axis=0)
            found[(str(arm), str(subset))] = own[0][["id", "article"]].assign(
                **dict(zip(numbers, mean.T, strict=True))
            )
    return found


def explained_variance(spectrum: str | Path, k: int) -> float:
    """The share of the total variance that the first ``k`` components keep."""
    table = pd.read_csv(spectrum, sep="\t")
    return float(table.loc[table["k"] == k, "explained_variance_ratio"].iloc[0])
