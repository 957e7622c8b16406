"""``phase1``, ``phase2``, ``control`` and ``random``: a trained adapter on the compressor's codes."""

from __future__ import annotations

import torch

from latentwire.adapter import Adapter
from latentwire.arms import ArmInputs
from latentwire.compression.compressor import EmbeddingCompressor

BLOCK_ROWS = 8192


@torch.no_grad()
def adapted(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """The adapter's output for each token's code."""
    compressor = EmbeddingCompressor.load(inputs.compressor, inputs.compress_dim)
    adapter = Adapter.load(inputs.adapter)
    codes_UK = compressor.codes(inputs.table_VD)[ids_U]
    return torch.cat([adapter(part) for part in codes_UK.split(BLOCK_ROWS)])


ARMS = {"phase1": adapted, "random": adapted, "phase2": adapted, "control": adapted}
