"""``pca``: the compressor's own linear inverse, nothing trained."""

from __future__ import annotations

import torch

from latentwire.arms import ArmInputs
from latentwire.compression.compressor import EmbeddingCompressor


def pca(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """Compress and decompress."""
    compressor = EmbeddingCompressor.load(inputs.compressor, inputs.compress_dim)
    return compressor.decompress(compressor.codes(inputs.table_VD)[ids_U])


ARMS = {"pca": pca}
