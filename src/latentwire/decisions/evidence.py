"""Reads one experiment's results into the tables that a verdict is made of. No thresholds, no decisions."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latentwire.arms_table import TRAINED, Variant, arm_row
from latentwire.artefacts import read_json, read_jsonl, read_measures, read_tsv
from latentwire.data.prompts_table import read_prompts
from latentwire.decisions.gate import question_means
from latentwire.decisions.requirements import phase2_wanted
from latentwire.evaluation.scores import read_scores, require_arms
from latentwire.files import bytes_by_dtype
from latentwire.integrity import reading
from latentwire.layout import Layout
from latentwire.results import Evidence, Rate, TrainingSummary, required_keys


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
        reconstruction: sums per question on ``gate``, averaged over seeds, by arm and subset.
        summaries: training summaries by arm, one per seed.
        histories: diagnostics by arm, one per seed.
        seeds: training seeds at this code dimension.
        divergence: how far each arm moves the model's predictions on ``final``, sums per question averaged over seeds,
            by arm and subset.
        kl_by_seed: KL at prompt positions per training seed, or per draw of a random error, by arm.
        rates: of the arms that are codecs, what they store of the table: bits per table parameter and megabytes.
    """

    k: int
    gate: Evidence
    run_phase2: bool
    arms: dict[str, ArmScores]
    reconstruction: dict[tuple[str, str], pd.DataFrame]
    summaries: dict[str, list[TrainingSummary]]
    histories: dict[str, list[list[dict[str, Any]]]]
    seeds: list[int]
    divergence: dict[tuple[str, str], pd.DataFrame]
    kl_by_seed: dict[str, list[float]]
    rates: dict[str, Rate]


def read_dimension(paths: Layout, k: int, seeds: list[int]) -> DimensionResults:
    """The results at one code dimension; Phase 2's only if its gate asked for it.

    Args:
        paths: of the experiment.
        k: the code dimension.
        seeds: training seeds.
    """
    run_phase2 = phase2_wanted(paths.gate(k, "decision"))
    stages = ("phase1", "phase2") if run_phase2 else ("phase1",)
    scores = read_scores(paths.scores("final"), read_prompts(paths.data("final"), ["id"])["id"])
    require_arms(scores, paths.scores("final"), {"text": None, "phase1": k})
    at_k = scores[scores["k"].isna() | (scores["k"] == k)]
    arms = {
        str(arm): _arm_scores([table.reset_index(drop=True) for _, table in own.groupby("seed", dropna=False)])
        for arm, own in at_k.groupby("arm", sort=False)
    }
    moved = read_measures(paths.divergence("final"))
    moved = moved[moved["k"].isna() | (moved["k"] == k)]
    trained = [arm for stage in stages for arm in TRAINED[stage] if arm in arms]
    folders = {arm: [Path(paths.training(k, seed, arm)) for seed in seeds] for arm in trained}
    return DimensionResults(
        k=k,
        gate=read_json(paths.gate(k, "evidence"), required_keys(Evidence)),
        run_phase2=run_phase2,
        arms=arms,
        reconstruction=_reconstruction([[paths.reconstruction(k, seed, stage) for seed in seeds] for stage in stages]),
        summaries={arm: [read_json(folder / "summary.json") for folder in own] for arm, own in folders.items()},
        histories={arm: [read_jsonl(folder / "diagnostics.jsonl") for folder in own] for arm, own in folders.items()},
        seeds=seeds,
        divergence=_divergence(moved),
        kl_by_seed=_kl_by_seed(moved),
        rates={
            arm: _rate(Path(str(paths.codec(Variant.of(arm, k, seeds[0])))))
            for arm in arms
            if arm_row(arm).kind == "codec"
        },
    )


def _divergence(table: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    numbers = ["positions", "kl", "same_top", "log_likelihood", "log_likelihood_text"]
    means = table.groupby(["arm", "subset", "id", "article"], sort=False)[numbers].mean().reset_index()
    return {
        (str(arm), str(subset)): own.reset_index(drop=True)
        for (arm, subset), own in means.groupby(["arm", "subset"], sort=False)
    }


def _kl_by_seed(table: pd.DataFrame) -> dict[str, list[float]]:
    prompt = table[(table["subset"] == "prompt") & table["seed"].notna()]
    sums = prompt.groupby(["arm", "seed"])[["kl", "positions"]].sum()
    ratios = sums["kl"] / sums["positions"]
    return {str(arm): own.tolist() for arm, own in ratios.groupby("arm")}


def _rate(folder: Path) -> Rate:
    """What a codec stores; codes that it shares count whole."""
    config = read_json(folder / "config.json")
    parts: Counter[str] = Counter()
    for part in ("codes", "decoder"):
        with reading(path := Path(os.path.normpath(folder / config[part]))):
            parts.update(bytes_by_dtype(path))
    stored = parts.total()
    return {
        "bits_per_parameter": 8 * stored / (config["rows"] * config["width"]),
        "megabytes": stored / 1e6,
        "megabytes_by_dtype": {dtype: own / 1e6 for dtype, own in parts.most_common()},
    }


def _arm_scores(tables: list[pd.DataFrame]) -> ArmScores:
    f1, deviation = question_means(tables, "f1")
    em, _ = question_means(tables, "em")
    return ArmScores(f1, em, deviation, pd.concat(tables, ignore_index=True), len(tables))


def _reconstruction(stage_files: list[list[str]]) -> dict[tuple[str, str], pd.DataFrame]:
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for files in stage_files:
        tables = [read_measures(file) for file in files]
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
    table = read_tsv(spectrum)
    return float(table.loc[table["k"] == k, "explained_variance_ratio"].iloc[0])
