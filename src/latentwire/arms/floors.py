"""The floors: ``mean`` (every token the mean embedding) and ``question`` (the context removed, read as token ids)."""

from __future__ import annotations

import torch

from latentwire.arms import ArmInputs


def mean(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """The count-weighted mean embedding of the PCA split, for every token."""
    used_U = inputs.counts_V.nonzero().flatten()
    weights_U = inputs.counts_V[used_U].double()
    mean_D = weights_U @ inputs.table_VD[used_U].double() / weights_U.sum()
    return mean_D.float().expand(len(ids_U), -1)


ARMS = {"mean": mean, "question": None}
