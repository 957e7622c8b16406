"""``snap`` and ``snap_d``: original rows of the table, found from the code alone.

``snap`` searches in code space and is lossless if codes are distinct: the bound of any decoder that knows the
table. ``snap_d`` searches for the row nearest to the linear inverse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentwire.compression.nearest import nearest_rows

if TYPE_CHECKING:
    from latentwire.codecs.base import Codec


def snap(table_VD: torch.Tensor, codec: Codec, ids_U: torch.Tensor) -> torch.Tensor:
    """The row whose code is nearest; the codec is a linear one."""
    codes_VK = codec.codes["codes_VK"]
    return table_VD[nearest_rows(codes_VK[ids_U], codes_VK)]


def snap_d(table_VD: torch.Tensor, codec: Codec, ids_U: torch.Tensor) -> torch.Tensor:
    """The row nearest to the codec's linear inverse."""
    return table_VD[nearest_rows(codec.decode(ids_U), table_VD)]
