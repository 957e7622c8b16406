"""Linear codecs: codes on K axes, and the linear inverse.

Shape suffixes: V table rows, D embedding dimensions, K code dimensions, U token ids.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch

from latentwire.codecs.base import Codec
from latentwire.compression.compressor import EmbeddingCompressor


class LinearCodec(Codec):
    """``codes_VK`` in the table's dtype, and μ, s and the axes of a compressor."""

    family: ClassVar[str] = "linear"

    @classmethod
    def of(cls, compressor: EmbeddingCompressor, table_VD: torch.Tensor) -> Self:
        """The table under a fitted compressor."""
        decoder = {name: getattr(compressor, name) for name in ("mean_D", "scale", "components_KD")}
        return cls({"codes_VK": compressor.codes(table_VD)}, decoder, (len(table_VD), table_VD.shape[1]))

    @property
    def codes_VK(self) -> torch.Tensor:
        """Codes of all rows."""
        return self.codes["codes_VK"]

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """μ + s·(z W), as :meth:`EmbeddingCompressor.decompress`."""
        own = self.decoder
        return own["mean_D"] + own["scale"] * (self.codes_VK[ids_U].float() @ own["components_KD"])
