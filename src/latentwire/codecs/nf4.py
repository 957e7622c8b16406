"""4-bit NormalFloat (NF4): each number is one of 16 published levels times its group's largest magnitude.

The levels are quantiles of a Gaussian, scaled to [-1, 1], and an exact 0 (Dettmers et al. 2023, appendix E). Scales
are in bf16 here, which makes 4.25 bits per number; bitsandbytes keeps them in float32 (4.5 bits).

Shape suffixes: V table rows, D embedding dimensions, G groups per row, N dimensions per group, U token ids, B bytes.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from latentwire.codecs.base import Codec, NotApplicable
from latentwire.codecs.packing import pack, unpack

BLOCK_ROWS = 8192
GROUP = 64
LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


class NormalFloatCodec(Codec):
    """``codes_VB`` packed and ``scale_VG`` in bf16; the levels in the decoder."""

    family: ClassVar[str] = "nf4"

    @classmethod
    def fit(cls, table_VD: torch.Tensor, group: int = GROUP) -> NormalFloatCodec:
        """Round a table.

        Args:
            table_VD: the embedding table.
            group: neighbouring dimensions that share a scale.

        Raises:
            NotApplicable: the width is no multiple of the group.
        """
        width = table_VD.shape[1]
        if width % group:
            raise NotApplicable(f"{width} dimensions are no multiple of groups of {group}")
        levels = torch.tensor(LEVELS)
        edges = (levels[1:] + levels[:-1]) / 2
        codes, scales = [], []
        for block_VD in table_VD.split(BLOCK_ROWS):
            rows_VGN = block_VD.float().unflatten(1, (-1, group))
            scale_VG1 = rows_VGN.abs().amax(dim=2, keepdim=True).bfloat16()
            # By the rounded scale, which is what the levels are multiplied by.
            quotient_VGN = rows_VGN / scale_VG1.float().clamp_min(torch.finfo(torch.float32).tiny)
            codes.append(pack(torch.bucketize(quotient_VGN, edges).flatten(1), 4))
            scales.append(scale_VG1.squeeze(2))
        stored = {"codes_VB": torch.cat(codes), "scale_VG": torch.cat(scales)}
        return cls(stored, {"levels": levels}, (len(table_VD), width))

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Levels times scale."""
        scale_UG = self.codes["scale_VG"][ids_U].float()
        numbers_UD = unpack(self.codes["codes_VB"][ids_U], 4, self.shape[1])
        levels_UGN = self.decoder["levels"][numbers_UD].unflatten(1, (scale_UG.shape[1], -1))
        return (levels_UGN * scale_UG[..., None]).flatten(1)
