"""Fits the untrained codecs by name. No fingerprint follows this: the rule names the family's module."""

from __future__ import annotations

from pathlib import Path

import torch

from latentwire.codecs.base import Codec
from latentwire.codecs.integers import FORMATS, IntegerCodec
from latentwire.codecs.linear import LinearCodec
from latentwire.codecs.own import own_module
from latentwire.codecs.product import GROUPS, ProductCodec
from latentwire.codecs.scalar import ScalarCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.errors import InputError


def fit_codec(
    name: str,
    table_VD: torch.Tensor,
    counts_V: torch.Tensor,
    compress_dim: int | None,
    *,
    compressor: Path | None = None,
    file: Path | None = None,
) -> Codec:
    """A codec, at one code dimension if it depends on it.

    Args:
        name: ``pca``, ``random``, ``quant``, or of ``integers.FORMATS`` or ``product.GROUPS``; with ``file``, any.
        table_VD: the embedding table.
        counts_V: token counts of the PCA split.
        compress_dim: K, the budget: so many numbers per token in the table's dtype; None if the codec has none.
        compressor: the fitted compressor, for ``pca`` and ``random``.
        file: a user's own codec, see :func:`~latentwire.codecs.own.own_module`.

    Raises:
        NotApplicable: there is none at this K.
        InputError: no such codec, or its file gives none.
    """
    if file is not None:
        if compress_dim is None:
            raise InputError(f"the codec {name!r} needs a code dimension (--compress_dim)")
        codec = own_module(file).fit(table_VD, counts_V, compress_dim)
        if not isinstance(codec, Codec) or codec.shape != tuple(table_VD.shape):
            raise InputError(f"{file}: fit() must return a Codec of the table's shape {list(table_VD.shape)}")
        return codec
    if name in FORMATS:
        return IntegerCodec.fit_named(name, table_VD)
    if name in GROUPS:
        return ProductCodec.fit_named(name, table_VD, counts_V)
    if compress_dim is None:
        raise InputError(f"the codec {name!r} needs a code dimension (--compress_dim)")
    if name == "quant":
        return ScalarCodec.fit(table_VD, counts_V, compress_dim)
    if compressor is None:
        raise InputError(f"the codec {name!r} needs a fitted compressor (--compressor)")
    return LinearCodec.of(EmbeddingCompressor.load(compressor, compress_dim), table_VD)
