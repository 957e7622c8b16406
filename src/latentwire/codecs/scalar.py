"""Scalar quantisation: every number of the table in 4, 2 or 1 bits, packed.

Each dimension is standardised by its count-weighted mean and deviation and rounded to the levels that are optimal for
a Gaussian (Lloyd 1982, Max 1960).

Shape suffixes: V table rows, D embedding dimensions, U token ids, B bytes per row.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from latentwire.codecs.base import Codec, NotApplicable
from latentwire.codecs.packing import pack, unpack

BITS = (4, 2, 1)
BLOCK_ROWS = 8192


def quantisation_bits(input_dim: int, code_dim: int, code_bits: int) -> int | None:
    """Bits per number that fit into a code of ``code_dim`` numbers of ``code_bits`` bits; None if 1 is too many."""
    return next((bits for bits in BITS if bits * input_dim <= code_dim * code_bits), None)


@cache
def gaussian_levels(bits: int) -> tuple[float, ...]:
    """The 2^bits levels that minimise the squared error of a standard Gaussian, by Lloyd's iteration."""
    levels = ndtri((np.arange(2**bits) + 0.5) / 2**bits)
    for _ in range(2000):
        edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        density = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
        levels = -np.diff(density) / np.diff(ndtr(edges))
    return tuple(levels.tolist())


class ScalarCodec(Codec):
    """``codes_VB`` packed, and each dimension's mean and deviation and the levels, in float64."""

    family: ClassVar[str] = "scalar"

    @classmethod
    def fit(cls, table_VD: torch.Tensor, counts_V: torch.Tensor, code_dim: int) -> ScalarCodec:
        """The most bits per number that take no more than a code of ``code_dim`` numbers in the table's dtype.

        Args:
            table_VD: the embedding table.
            counts_V: occurrences of each row, which weigh means and deviations.
            code_dim: K.

        Raises:
            NotApplicable: even one bit per number is more than the code takes.
        """
        width = table_VD.shape[1]
        bits = quantisation_bits(width, code_dim, table_VD.element_size() * 8)
        if bits is None:
            raise NotApplicable(f"one bit for each of {width} numbers is more than a code of {code_dim} numbers takes")
        used_U = counts_V.nonzero().flatten()
        weights_U1 = counts_V[used_U].double()[:, None]
        rows_UD = table_VD[used_U].double()
        mean_D = (weights_U1 * rows_UD).sum(dim=0) / weights_U1.sum()
        variance_D = (weights_U1 * (rows_UD - mean_D).square()).sum(dim=0) / weights_U1.sum()
        std_D = variance_D.sqrt().clamp_min(1e-30)
        levels = torch.tensor(gaussian_levels(bits), dtype=torch.float64)
        edges = (levels[1:] + levels[:-1]) / 2
        codes_VB = torch.cat(
            [
                pack(torch.bucketize((block.double() - mean_D) / std_D, edges), bits)
                for block in table_VD.split(BLOCK_ROWS)
            ]
        )
        decoder = {"mean_D": mean_D, "std_D": std_D, "levels": levels}
        return cls({"codes_VB": codes_VB}, decoder, (len(table_VD), width))

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Levels, scaled back."""
        own = self.decoder
        bits = len(own["levels"]).bit_length() - 1
        numbers_UD = unpack(self.codes["codes_VB"][ids_U], bits, self.shape[1])
        return (own["levels"][numbers_UD] * own["std_D"] + own["mean_D"]).float()
