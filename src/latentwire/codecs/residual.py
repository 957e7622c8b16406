"""Residual quantisation: product quantisation of a table, then of what it leaves, a stage after the other.

Shape suffixes: V table rows, D embedding dimensions, T stages, S groups (subspaces), C codewords, N dimensions per
group, U token ids.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from latentwire.codecs.base import Codec
from latentwire.codecs.product import ProductCodec

# Stages and dimensions per codeword, by the codec's name.
FORMATS = {"rq8": (2, 8)}


class ResidualCodec(Codec):
    """``codes_VTS`` in uint8, and ``codebooks_TSCN`` in bf16."""

    family: ClassVar[str] = "residual"

    @classmethod
    def fit(
        cls, table_VD: torch.Tensor, weights_V: torch.Tensor, stages: int, group: int, *, seed: int = 0
    ) -> ResidualCodec:
        """Fit one stage after the other: 8·``stages``/``group`` bits per parameter, and the codebooks.

        Args:
            table_VD: the embedding table.
            weights_V: of its rows, positive.
            stages: how many.
            group: dimensions per codeword.
            seed: of every stage's k-means.

        Raises:
            NotApplicable: as :meth:`ProductCodec.fit`.
        """
        residual_VD, fitted = table_VD.float(), []
        for _ in range(stages):
            fitted.append(ProductCodec.fit(residual_VD, weights_V, group, seed=seed))
            residual_VD = residual_VD - fitted[-1].decode(torch.arange(len(table_VD)))
        codes_VTS = torch.stack([stage.codes["codes_VS"] for stage in fitted], dim=1)
        codebooks_TSCN = torch.stack([stage.decoder["codebooks_SCN"] for stage in fitted])
        return cls({"codes_VTS": codes_VTS}, {"codebooks_TSCN": codebooks_TSCN}, fitted[0].shape)

    @classmethod
    def fit_named(cls, name: str, table_VD: torch.Tensor, counts_V: torch.Tensor) -> ResidualCodec:
        """The codec of :data:`FORMATS`, with token counts + 1 as weights."""
        return cls.fit(table_VD, counts_V + 1, *FORMATS[name])

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """The sum of each group's codewords."""
        codes_UTS = self.codes["codes_VTS"][ids_U].long()
        codebooks_TSCN = self.decoder["codebooks_TSCN"].float()
        stages, groups = codebooks_TSCN.shape[:2]
        words_UTSN = codebooks_TSCN[torch.arange(stages)[:, None], torch.arange(groups), codes_UTS]
        return words_UTSN.sum(dim=1).flatten(1)
