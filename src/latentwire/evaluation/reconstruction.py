"""Reconstruction of arms on a split: count-weighted, on answer tokens, and by how often training saw the token.

Shape suffixes: V table rows, U token types, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs, rebuilt_rows
from latentwire.compression.counts import mean_embedding
from latentwire.evaluation.reconstruction_metrics import question_sums, summarise_types, type_errors
from latentwire.evaluation.reconstruction_summary import summarise

# Token types by their occurrences in the training prompts: from, and below.
TRAIN_COUNTS = {"1-9": (1, 10), "10-99": (10, 100), "100-999": (100, 1000), "1000+": (1000, np.inf)}


def subset_masks(prompts: pd.DataFrame, train_counts_V: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Which tokens of each prompt are in a subset (bool): ``all``, ``answer``, ``seen``, ``unseen``, and buckets.

    Args:
        prompts: the split.
        train_counts_V: occurrences of each token type in the training prompts.
    """
    sequences = [np.asarray(ids) for ids in prompts["input_ids"]]
    counts = [train_counts_V[ids] for ids in sequences]
    return {
        "all": [np.ones(len(ids), dtype=bool) for ids in sequences],
        "answer": [np.asarray(mask, dtype=bool) for mask in prompts["answer_mask"]],
        "seen": [own > 0 for own in counts],
        "unseen": [own == 0 for own in counts],
        **{name: [(own >= low) & (own < high) for own in counts] for name, (low, high) in TRAIN_COUNTS.items()},
    }


def measure_arms(
    inputs: Mapping[str, ArmInputs],
    prompts: pd.DataFrame,
    train_counts_V: np.ndarray,
    reading_DD: torch.Tensor | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reconstruction of each arm on prepared prompts.

    Args:
        inputs: what each arm may use. μ is the mean of the PCA split's occurrences, whatever smoothing did to the
            compressor's: one reference for all arms and settings.
        prompts: the split.
        train_counts_V: occurrences of each token type in the training prompts.
        reading_DD: see :func:`~latentwire.evaluation.reconstruction_metrics.type_errors`.

    Returns:
        One row per question, arm and subset (:func:`subset_masks`) with the sums of
        :func:`~latentwire.evaluation.reconstruction_metrics.question_sums`; and a summary of each arm: every subset
        weighted by count, and ``types``: each type counted once, all, seen and unseen.
    """
    sequences = [np.asarray(ids) for ids in prompts["input_ids"]]
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    seen_U = train_counts_V[ids_U.numpy()] > 0
    masks = subset_masks(prompts, train_counts_V)
    tables, summaries = [], {}
    for arm, own in inputs.items():
        rows_UD = rebuilt_rows(arm, own, ids_U)
        assert rows_UD is not None, f"{arm} reads token ids"
        mean_D = mean_embedding(own.table_VD, own.counts_V)
        errors = type_errors(ids_U, rows_UD, own.table_VD, mean_D, reading_DD)
        summary: dict[str, Any] = {
            "types": {
                "all": summarise_types(errors, np.ones_like(seen_U)),
                "seen": summarise_types(errors, seen_U),
                "unseen": summarise_types(errors, ~seen_U),
            }
        }
        for subset, own_masks in masks.items():
            sums = question_sums(errors, ids_U, sequences, own_masks)
            summary[subset] = summarise(sums)
            tables.append(sums.assign(arm=arm, subset=subset, id=prompts["id"], article=prompts["article"]))
        summaries[arm] = summary
    return pd.concat(tables, ignore_index=True), summaries
