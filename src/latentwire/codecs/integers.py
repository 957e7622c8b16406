"""Rounding to integers in groups of neighbouring dimensions, the usual weight-only formats.

Symmetric: a scale per row and group, as compressed-tensors' ``pack-quantized`` format has it (LLM Compressor's
default). Asymmetric: a scale and a minimum per row and group.

Shape suffixes: V table rows, D embedding dimensions, G groups per row, N dimensions per group, U token ids, B bytes.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from latentwire.codecs.base import Codec, NotApplicable
from latentwire.codecs.packing import pack, unpack

BLOCK_ROWS = 8192
_BITS = {"int8": (8, True), "int4": (4, True), "int4_asymmetric": (4, False)}
_BITS |= {"int2": (2, True), "int2_asymmetric": (2, False)}
# Bits, whether symmetric, and dimensions per group, by the codec's name.
FORMATS = {
    f"{name}{suffix}": (bits, symmetric, group)
    for name, (bits, symmetric) in _BITS.items()
    for suffix, group in (("", 64), ("_g32", 32), ("_g128", 128))
}


class IntegerCodec(Codec):
    """``codes_VB`` packed, ``scale_VG`` in bf16 and, if asymmetric, ``minimum_VG``; ``bits`` in the decoder."""

    family: ClassVar[str] = "integers"

    @classmethod
    def fit(cls, table_VD: torch.Tensor, bits: int, group: int, *, symmetric: bool = True) -> IntegerCodec:
        """Round a table.

        Args:
            table_VD: the embedding table.
            bits: per number: 2, 4 or 8.
            group: neighbouring dimensions that share a scale.
            symmetric: whether the integers lie around zero, or from a minimum upwards.

        Raises:
            NotApplicable: the width is no multiple of the group.
        """
        width = table_VD.shape[1]
        if width % group:
            raise NotApplicable(f"{width} dimensions are no multiple of groups of {group}")
        make = _symmetric if symmetric else _asymmetric
        parts = [make(block.unflatten(1, (-1, group)), bits) for block in table_VD.split(BLOCK_ROWS)]
        codes = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return cls(codes, {"bits": torch.tensor(bits, dtype=torch.uint8)}, (len(table_VD), width))

    @classmethod
    def fit_named(cls, name: str, table_VD: torch.Tensor) -> IntegerCodec:
        """The codec of :data:`FORMATS`."""
        bits, symmetric, group = FORMATS[name]
        return cls.fit(table_VD, bits, group, symmetric=symmetric)

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Integers times scale, plus the minimum if there is one."""
        bits, (_, width) = int(self.decoder["bits"]), self.shape
        numbers_UD = unpack(self.codes["codes_VB"][ids_U], bits, width)
        scale_UG = self.codes["scale_VG"][ids_U].float()
        numbers_UGN = numbers_UD.unflatten(1, (scale_UG.shape[1], -1)).float()
        if "minimum_VG" in self.codes:
            return (numbers_UGN * scale_UG[..., None] + self.codes["minimum_VG"][ids_U].float()[..., None]).flatten(1)
        return ((numbers_UGN - 2 ** (bits - 1)) * scale_UG[..., None]).flatten(1)


def _symmetric(rows_VGN: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    # The quotient is rounded to bf16 before it is rounded to an integer, as the format's own library does.
    most_VG1 = rows_VGN.float().abs().amax(dim=2, keepdim=True)
    scale_VG1 = (most_VG1 / ((2**bits - 1) / 2)).bfloat16()
    quotient_VGN = rows_VGN.bfloat16() / scale_VG1.clamp_min(torch.finfo(torch.bfloat16).tiny)
    half = 2 ** (bits - 1)
    numbers_VGN = quotient_VGN.round().clamp(-half, half - 1) + half
    return {"codes_VB": pack(numbers_VGN.flatten(1), bits), "scale_VG": scale_VG1.squeeze(2)}


def _asymmetric(rows_VGN: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    rows_VGN = rows_VGN.float()
    least_VG1 = rows_VGN.amin(dim=2, keepdim=True).bfloat16()
    span_VG1 = rows_VGN.amax(dim=2, keepdim=True) - least_VG1.float()
    scale_VG1 = (span_VG1 / (2**bits - 1)).bfloat16()
    quotient_VGN = (rows_VGN - least_VG1.float()) / scale_VG1.float().clamp_min(torch.finfo(torch.float32).tiny)
    numbers_VGN = quotient_VGN.round().clamp(0, 2**bits - 1)
    return {
        "codes_VB": pack(numbers_VGN.flatten(1), bits),
        "scale_VG": scale_VG1.squeeze(2),
        "minimum_VG": least_VG1.squeeze(2),
    }
