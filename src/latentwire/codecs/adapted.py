"""A trained adapter on the codes of a linear codec.

Shape suffixes: V table rows, D embedding dimensions, K code dimensions, U token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import torch

from latentwire.adapter import Adapter
from latentwire.codecs.base import Codec
from latentwire.codecs.files import ADAPTER_FILE

BLOCK_ROWS = 8192


class AdapterCodec(Codec):
    """``codes_VK``, and the adapter's weights and constants."""

    family: ClassVar[str] = "adapter"
    decoder_file: ClassVar[str] = ADAPTER_FILE

    @classmethod
    def of(cls, codes: Mapping[str, torch.Tensor], adapter: Adapter, rows: int) -> AdapterCodec:
        """An adapter on codes of a table with so many rows."""
        return cls(codes, adapter.stored(torch.float32), (rows, adapter.d_model))

    @cached_property
    def adapter(self) -> Adapter:
        """The network."""
        return Adapter.from_state(self.decoder)

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """The adapter's output for each row's code."""
        codes_UK = self.codes["codes_VK"][ids_U]
        return torch.cat([self.adapter(part) for part in codes_UK.split(BLOCK_ROWS)])
