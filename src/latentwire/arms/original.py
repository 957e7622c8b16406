"""``text`` (token ids, the ceiling) and ``identity`` (the original embeddings through ``inputs_embeds``)."""

from __future__ import annotations

import torch

from latentwire.arms import ArmInputs


def identity(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """The original rows."""
    return inputs.table_VD[ids_U]


ARMS = {"text": None, "identity": identity}
