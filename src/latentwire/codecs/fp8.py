"""Floating-point numbers of 8 bits (E4M3: 4 of exponent, 3 of mantissa, no infinities) with a scale per row.

Shape suffixes: V table rows, D embedding dimensions, U token ids.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from latentwire.codecs.base import Codec

BLOCK_ROWS = 8192
FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max


class Float8Codec(Codec):
    """``codes_VD`` in float8 and ``scale_V1`` in bf16; nothing is shared by rows."""

    family: ClassVar[str] = "fp8"

    @classmethod
    def fit(cls, table_VD: torch.Tensor) -> Float8Codec:
        """Round a table; each row's largest magnitude becomes the format's.

        Args:
            table_VD: the embedding table.
        """
        rows, width = table_VD.shape
        codes, scales = [], []
        for block_VD in table_VD.split(BLOCK_ROWS):
            rows_VD = block_VD.float()
            scale_V1 = (rows_VD.abs().amax(dim=1, keepdim=True) / LARGEST).bfloat16()
            quotient_VD = rows_VD / scale_V1.float().clamp_min(torch.finfo(torch.float32).tiny)
            # bf16 rounds the scale by 2^-9 at most, and what exceeds the format's largest number by that becomes it.
            codes.append(quotient_VD.to(FORMAT))
            scales.append(scale_V1)
        return cls({"codes_VD": torch.cat(codes), "scale_V1": torch.cat(scales)}, {}, (rows, width))

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Numbers times scale."""
        # Rows are gathered as bytes: not every version of torch can index this dtype.
        numbers_UD = self.codes["codes_VD"].view(torch.uint8)[ids_U].view(FORMAT)
        return numbers_UD.float() * self.codes["scale_V1"][ids_U].float()
