"""Reconstruction of arms on a split: count-weighted, on answer tokens, seen and unseen token types apart.

Shape suffixes: V table rows, U token types, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs, rebuild_function
from latentwire.compression.counts import mean_embedding
from latentwire.compression.metrics import question_sums, summarise_types, type_errors
from latentwire.compression.summary import summarise

SUBSETS = ("all", "answer", "seen", "unseen")


def measure_arms(
    inputs: Mapping[str, ArmInputs], prompts: pd.DataFrame, seen_V: np.ndarray
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reconstruction of each arm on prepared prompts.

    Args:
        inputs: what each arm may use. μ is the mean of the PCA split's occurrences, whatever smoothing did to the
            compressor's: one yardstick for all arms and settings.
        prompts: the split.
        seen_V: token types that occur in the training prompts, bool ``[V]``.

    Returns:
        One row a question, arm and subset (``all`` tokens, ``answer`` tokens, ``seen`` and ``unseen`` types) with the
        sums of :func:`~latentwire.compression.metrics.question_sums`; and a summary for each arm: every subset
        weighted by count, and ``types``: each type counted once, all, seen and unseen.
    """
    sequences = [np.asarray(ids) for ids in prompts["input_ids"]]
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    seen_U = seen_V[ids_U.numpy()]
    masks = {
        "all": [np.ones(len(ids), dtype=bool) for ids in sequences],
        "answer": [np.asarray(mask, dtype=bool) for mask in prompts["answer_mask"]],
        "seen": [seen_V[ids] for ids in sequences],
        "unseen": [~seen_V[ids] for ids in sequences],
    }
    tables, summaries = [], {}
    for arm, own in inputs.items():
        rebuild = rebuild_function(arm)
        assert rebuild is not None, f"{arm} reads token ids"
        mean_D = mean_embedding(own.table_VD, own.counts_V)
        errors = type_errors(ids_U, rebuild(own, ids_U), own.table_VD, mean_D)
        summary: dict[str, Any] = {
            "types": {
                "all": summarise_types(errors, np.ones_like(seen_U)),
                "seen": summarise_types(errors, seen_U),
                "unseen": summarise_types(errors, ~seen_U),
            }
        }
        for subset in SUBSETS:
            sums = question_sums(errors, ids_U, sequences, masks[subset])
            summary[subset] = summarise(sums)
            tables.append(sums.assign(arm=arm, subset=subset, id=prompts["id"], article=prompts["article"]))
        summaries[arm] = summary
    return pd.concat(tables, ignore_index=True), summaries
