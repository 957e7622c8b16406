"""A random rotation, then every number in 4 or 2 bits: in the rotated space all dimensions are nearly Gaussian alike.

The rotation multiplies each dimension by a random sign and then applies the Kronecker product of a random orthogonal
matrix and a Hadamard matrix of the largest power of two that divides the width: it exists for any width and is fast.
One scale per row and the levels that are optimal for a Gaussian follow, as in :mod:`latentwire.codecs.scalar`.

Shape suffixes: V table rows, D embedding dimensions, M the odd part of D, P its power of two (D = M·P), U token ids,
B bytes per row.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from scipy.linalg import hadamard

from latentwire.codecs.base import Codec
from latentwire.codecs.packing import pack, unpack
from latentwire.codecs.scalar import gaussian_levels

BLOCK_ROWS = 8192
# Bits per number, by the codec's name.
BITS = {"rotated4": 4, "rotated2": 2}


class RotatedCodec(Codec):
    """``codes_VB`` packed and ``scale_V1`` in bf16; ``factor_MM`` and ``signs_D``, and the levels, in the decoder."""

    family: ClassVar[str] = "rotated"

    @classmethod
    def fit(cls, table_VD: torch.Tensor, bits: int, *, seed: int = 0) -> RotatedCodec:
        """Rotate and round a table.

        Args:
            table_VD: the embedding table.
            bits: per number: 1, 2, 4 or 8.
            seed: of the rotation.
        """
        width = table_VD.shape[1]
        factor_MM, signs_D = random_rotation(width, seed)
        levels = torch.tensor(gaussian_levels(bits), dtype=torch.float32)
        edges = (levels[1:] + levels[:-1]) / 2
        codes, scales = [], []
        for block_VD in table_VD.split(BLOCK_ROWS):
            rotated_VD = rotate(block_VD.float(), factor_MM, signs_D)
            scale_V1 = rotated_VD.square().mean(dim=1, keepdim=True).sqrt().bfloat16()
            # By the rounded scale, which is what the levels are multiplied by.
            quotient_VD = rotated_VD / scale_V1.float().clamp_min(torch.finfo(torch.float32).tiny)
            codes.append(pack(torch.bucketize(quotient_VD, edges), bits))
            scales.append(scale_V1)
        decoder = {"factor_MM": factor_MM, "signs_D": signs_D, "levels": levels}
        return cls({"codes_VB": torch.cat(codes), "scale_V1": torch.cat(scales)}, decoder, (len(table_VD), width))

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Levels times scale, rotated back."""
        own = self.decoder
        bits = len(own["levels"]).bit_length() - 1
        numbers_UD = unpack(self.codes["codes_VB"][ids_U], bits, self.shape[1])
        rotated_UD = own["levels"][numbers_UD] * self.codes["scale_V1"][ids_U].float()
        return rotate_back(rotated_UD, own["factor_MM"], own["signs_D"])


def random_rotation(width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What defines a rotation: the orthogonal ``factor_MM``, float32, and ``signs_D``, int8."""
    generator = torch.Generator().manual_seed(seed)
    odd = width // _power_of_two(width)
    gaussian_MM = torch.randn(odd, odd, dtype=torch.float64, generator=generator)
    signs_D = 2 * torch.randint(0, 2, (width,), dtype=torch.int8, generator=generator) - 1
    return torch.linalg.qr(gaussian_MM).Q.float(), signs_D


def rotate(rows_UD: torch.Tensor, factor_MM: torch.Tensor, signs_D: torch.Tensor) -> torch.Tensor:
    """The rotation of rows ``[U, D]``: (factor ⊗ Hadamard/√P) · (signs ∘ x)."""
    signed_UMP = (rows_UD * signs_D).unflatten(1, (len(factor_MM), -1))
    return (factor_MM @ _hadamard(signed_UMP)).flatten(1)


def rotate_back(rotated_UD: torch.Tensor, factor_MM: torch.Tensor, signs_D: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`rotate`, its transpose."""
    rotated_UMP = rotated_UD.unflatten(1, (len(factor_MM), -1))
    return _hadamard(factor_MM.T @ rotated_UMP).flatten(1) * signs_D


def _hadamard(x: torch.Tensor) -> torch.Tensor:
    """The Hadamard transform along the last axis, a power of two long, divided by √P: its own inverse."""
    # A large Hadamard matrix is the Kronecker product of two small ones, one for each axis of a square.
    length = x.shape[-1]
    height = 2 ** ((length.bit_length() - 1) // 2)
    left, right = (torch.from_numpy(hadamard(side)).float() for side in (height, length // height))
    return (left @ x.unflatten(-1, (height, -1)) @ right).flatten(-2) / length**0.5


def _power_of_two(number: int) -> int:
    """The largest that divides a number."""
    return number & -number
