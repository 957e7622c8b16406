"""Fits the untrained codecs by name. No fingerprint follows this: the rule names the family's module."""

from __future__ import annotations

from pathlib import Path

import torch

from latentwire.arms_table import ARMS, COMPRESSORS
from latentwire.codecs import rotated, rounded
from latentwire.codecs.base import Codec
from latentwire.codecs.fp8 import Float8Codec
from latentwire.codecs.integers import IntegerCodec
from latentwire.codecs.linear import LinearCodec
from latentwire.codecs.nf4 import NormalFloatCodec
from latentwire.codecs.own import own_module
from latentwire.codecs.product import ProductCodec
from latentwire.codecs.residual import ResidualCodec
from latentwire.codecs.rotated import RotatedCodec
from latentwire.codecs.rounded import RoundedLinearCodec
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
        name: of a codec in :data:`~latentwire.arms_table.ARMS`; with ``file``, any.
        table_VD: the embedding table.
        counts_V: token counts of the PCA split.
        compress_dim: K, the budget: so many numbers per token in the table's dtype; None if the codec has none.
        compressor: the fitted compressor, for the codecs in :data:`~latentwire.arms_table.COMPRESSORS`.
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
    if name not in ARMS or ARMS[name].codec != name:
        raise InputError(f"there is no codec {name!r}")
    if name not in COMPRESSORS and not ARMS[name].sized:
        return _fit_table_codec(name, table_VD, counts_V)
    if compress_dim is None and ARMS[name].sized:
        raise InputError(f"the codec {name!r} needs a code dimension (--compress_dim)")
    if name not in COMPRESSORS:
        assert compress_dim is not None
        return ScalarCodec.fit(table_VD, counts_V, compress_dim)
    if compressor is None:
        raise InputError(f"the codec {name!r} needs a fitted compressor (--compressor)")
    fitted = EmbeddingCompressor.load(compressor, compress_dim)
    if name in rounded.BITS:
        return RoundedLinearCodec.of(fitted, table_VD, counts_V, rounded.BITS[name])
    return LinearCodec.of(fitted, table_VD)


def _fit_table_codec(name: str, table_VD: torch.Tensor, counts_V: torch.Tensor) -> Codec:
    """A codec that does not depend on the code dimension."""
    match ARMS[name].family:
        case "integers":
            return IntegerCodec.fit_named(name, table_VD)
        case "fp8":
            return Float8Codec.fit(table_VD)
        case "nf4":
            return NormalFloatCodec.fit(table_VD)
        case "rotated":
            return RotatedCodec.fit(table_VD, rotated.BITS[name])
        case "product":
            return ProductCodec.fit_named(name, table_VD, counts_V)
        case "residual":
            return ResidualCodec.fit_named(name, table_VD, counts_V)
    raise AssertionError(f"no way to fit the family of {name!r}")
