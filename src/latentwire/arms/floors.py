"""The floors: ``mean`` (every token the mean embedding) and ``question`` (the context removed, read as token ids)."""

from __future__ import annotations

import torch

from latentwire.arms import ArmInputs
from latentwire.compression.counts import mean_embedding


def mean(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """The count-weighted mean embedding of the PCA split, for every token."""
    return mean_embedding(inputs.table_VD, inputs.counts_V).float().expand(len(ids_U), -1)


ARMS = {"mean": mean, "question": None}
