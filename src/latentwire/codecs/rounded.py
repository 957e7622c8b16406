"""Linear codes rounded to integers, with a step per code dimension.

Codes differ in size from one dimension to another more than from row to row, so steps belong to dimensions, which
takes no bits per row. A step that reaches a dimension's largest code is too coarse for its other codes. So it is the
fraction of that with the least squared error, where rows weigh as often as their tokens occur, plus one; larger codes
are clipped.

Shape suffixes: V table rows, D embedding dimensions, K code dimensions, U token ids, B bytes per row.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from latentwire.codecs.base import Codec
from latentwire.codecs.packing import pack, unpack
from latentwire.compression.compressor import EmbeddingCompressor

BLOCK_ROWS = 8192
# Bits per number of a code, by the codec's name.
BITS = {"pca_int8": 8, "pca_int4": 4}
# Of the step that clips nothing; the least error of 4-bit codes lies at 0.4 to 0.9 of it.
FRACTIONS = tuple(2 ** (-number / 8) for number in range(17))


class RoundedLinearCodec(Codec):
    """``codes_VB`` packed; ``step_K``, ``bits``, and μ, s and the axes of a compressor in the decoder."""

    family: ClassVar[str] = "rounded"

    @classmethod
    def of(
        cls, compressor: EmbeddingCompressor, table_VD: torch.Tensor, counts_V: torch.Tensor, bits: int
    ) -> RoundedLinearCodec:
        """The table under a fitted compressor, rounded.

        Args:
            compressor: whose axes are used, with its code dimension.
            table_VD: the embedding table.
            counts_V: occurrences of each row, which weigh the error of rounding.
            bits: per number of a code: 2, 4 or 8.
        """
        # In float32: rounding to the table's dtype first would round twice.
        codes_VK = torch.cat([compressor.compress(block.float()) for block in table_VD.split(BLOCK_ROWS)])
        step_K = best_steps(codes_VK, counts_V + 1, bits)
        numbers_VK = _rounded(codes_VK, step_K, bits) + 2 ** (bits - 1)
        decoder = {name: getattr(compressor, name) for name in ("mean_D", "scale", "components_KD")}
        decoder |= {"step_K": step_K, "bits": torch.tensor(bits, dtype=torch.uint8)}
        return cls({"codes_VB": pack(numbers_VK, bits)}, decoder, (len(table_VD), table_VD.shape[1]))

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """μ + s·(z W), where z are integers times steps."""
        own, bits = self.decoder, int(self.decoder["bits"])
        numbers_UK = unpack(self.codes["codes_VB"][ids_U], bits, len(own["step_K"])) - 2 ** (bits - 1)
        return own["mean_D"] + own["scale"] * ((numbers_UK * own["step_K"]) @ own["components_KD"])


def best_steps(codes_VK: torch.Tensor, weights_V: torch.Tensor, bits: int) -> torch.Tensor:
    """Each dimension's step among :data:`FRACTIONS` of that which clips nothing, float32 ``[K]``.

    Args:
        codes_VK: the codes to round, float32.
        weights_V: of each row's squared error.
        bits: per number.
    """
    whole_K = codes_VK.abs().amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny) / ((2**bits - 1) / 2)
    steps_FK = torch.tensor(FRACTIONS)[:, None] * whole_K
    weights_V = weights_V.double()
    errors_FK = torch.stack([_squared_error(codes_VK, weights_V, step_K, bits) for step_K in steps_FK])
    return steps_FK.gather(0, errors_FK.argmin(dim=0, keepdim=True)).squeeze(0)


def _squared_error(codes_VK: torch.Tensor, weights_V: torch.Tensor, step_K: torch.Tensor, bits: int) -> torch.Tensor:
    """Weighted sums over rows, float64 ``[K]``, a block of rows at a time."""
    blocks = zip(codes_VK.split(BLOCK_ROWS), weights_V.split(BLOCK_ROWS), strict=True)
    errors = [w_V @ (_rounded(z_VK, step_K, bits) * step_K - z_VK).square().double() for z_VK, w_V in blocks]
    return torch.stack(errors).sum(dim=0)


def _rounded(codes_VK: torch.Tensor, step_K: torch.Tensor, bits: int) -> torch.Tensor:
    half = 2 ** (bits - 1)
    return (codes_VK / step_K).round().clamp(-half, half - 1)
