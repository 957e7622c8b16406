"""Small numbers packed into bytes.

Shape suffixes: U rows, D numbers per row, B bytes per row, N numbers per byte.
"""

from __future__ import annotations

import torch


def pack(numbers_UD: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers below 2^bits as bytes, uint8 ``[U, B]``, the first in the lowest bits; rows end with whole bytes.

    Args:
        numbers_UD: integers.
        bits: 1, 2, 4 or 8.
    """
    per_byte = 8 // bits
    padded_UD = torch.nn.functional.pad(numbers_UD.to(torch.uint8), (0, -numbers_UD.shape[1] % per_byte))
    shifts_N = bits * torch.arange(per_byte, dtype=torch.uint8)
    return (padded_UD.unflatten(1, (-1, per_byte)) << shifts_N).sum(dim=2, dtype=torch.uint8)


def unpack(packed_UB: torch.Tensor, bits: int, width: int) -> torch.Tensor:
    """What :func:`pack` was given, int64 ``[U, D]``."""
    shifts_N = bits * torch.arange(8 // bits, dtype=torch.uint8)
    numbers_UBN = (packed_UB[..., None] >> shifts_N) & (2**bits - 1)
    return numbers_UBN.flatten(1)[:, :width].long()
