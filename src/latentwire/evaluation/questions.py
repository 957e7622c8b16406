"""Which questions an arm answers, and in which batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from latentwire.arms_table import arm_row
from latentwire.evaluation.prefixes import batches_by_prefix


def arm_batches(
    arm: str, prompts: pd.DataFrame, batch_size: int, identity_samples: int | None = None
) -> list[list[int]]:
    """Batches of indices into the split, the same for every arm, since in others bf16 rounds differently.

    ``identity`` answers evenly spaced ones of them, with ``identity_samples`` questions at least; None: all.
    """
    batches = batches_by_prefix([np.asarray(ids) for ids in prompts["input_ids"]], batch_size)
    if not arm_row(arm).sampled or identity_samples is None:
        return batches
    wanted = math.ceil(min(identity_samples, len(prompts)) / batch_size)
    return [batches[number * len(batches) // wanted] for number in range(wanted)]


def in_parts(batches: Sequence[Sequence[int]], parts: int) -> list[Sequence[int]]:
    """Each batch in so many parts, or in single prompts."""
    sizes = [-(-len(batch) // parts) for batch in batches]
    return [
        batch[start : start + size]
        for batch, size in zip(batches, sizes, strict=True)
        for start in range(0, len(batch), size)
    ]
