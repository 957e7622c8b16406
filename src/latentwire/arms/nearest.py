"""``snap`` and ``snap_d``: original rows of the table, found from the code alone.

``snap`` searches in code space and is lossless where codes are distinct: the bound of any decoder that knows the
table. ``snap_d`` searches for the row nearest to the linear inverse.
"""

from __future__ import annotations

import torch

from latentwire.arms import ArmInputs
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.nearest import nearest_rows


def snap(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """The row whose code is nearest."""
    compressor = EmbeddingCompressor.load(inputs.compressor, inputs.compress_dim)
    codes_VK = compressor.codes(inputs.table_VD)
    return inputs.table_VD[nearest_rows(codes_VK[ids_U], codes_VK)]


def snap_d(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """The row nearest to the compressor's linear inverse."""
    compressor = EmbeddingCompressor.load(inputs.compressor, inputs.compress_dim)
    inverse_UD = compressor.decompress(compressor.codes(inputs.table_VD)[ids_U])
    return inputs.table_VD[nearest_rows(inverse_UD, inputs.table_VD)]


ARMS = {"snap": snap, "snap_d": snap_d}
