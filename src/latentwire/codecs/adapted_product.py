"""A trained adapter on the rows that product quantisation rebuilds, to which it adds what it has learned.

An adapter of this kind is what CARVQ (Gou et al. 2025) puts behind its quantised tables.

Shape suffixes: U token ids, D embedding dimensions.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch

from latentwire.adapter import Adapter
from latentwire.codecs.base import Codec
from latentwire.codecs.files import ADAPTER_FILE
from latentwire.codecs.product import ProductCodec

BLOCK_ROWS = 8192


class AdaptedProductCodec(Codec):
    """Product quantisation's codes; its codebooks, and the adapter's weights and constants."""

    family: ClassVar[str] = "adapted_product"
    decoder_file: ClassVar[str] = ADAPTER_FILE

    @classmethod
    def of(cls, inner: ProductCodec, adapter: Adapter, dtype: torch.dtype = torch.float32) -> AdaptedProductCodec:
        """An adapter, stored in a dtype, on a codec's rows."""
        state = {f"adapter.{name}": tensor for name, tensor in adapter.stored(dtype).items()}
        return cls(inner.codes, inner.decoder | state, inner.shape)

    @cached_property
    def inner(self) -> ProductCodec:
        """The product quantisation."""
        return ProductCodec(self.codes, {"codebooks_SCN": self.decoder["codebooks_SCN"]}, self.shape)

    @cached_property
    def adapter(self) -> Adapter:
        """The network."""
        own = {name.removeprefix("adapter."): tensor for name, tensor in self.decoder.items() if "." in name}
        return Adapter.from_state(own)

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """The adapter's output for each rebuilt row."""
        rows = (self.inner.decode_rows(part) for part in ids_U.split(BLOCK_ROWS))
        return torch.cat([self.adapter((own_UD - self.adapter.mean_D) / self.adapter.scale) for own_UD in rows])
