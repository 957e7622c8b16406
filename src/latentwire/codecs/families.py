"""Every family of codecs, and the loading of one of any family."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from latentwire.codecs.adapted import AdapterCodec
from latentwire.codecs.adapted_product import AdaptedProductCodec
from latentwire.codecs.base import Codec
from latentwire.codecs.files import read_config
from latentwire.codecs.fp8 import Float8Codec
from latentwire.codecs.integers import IntegerCodec
from latentwire.codecs.linear import LinearCodec
from latentwire.codecs.nf4 import NormalFloatCodec
from latentwire.codecs.product import ProductCodec
from latentwire.codecs.residual import ResidualCodec
from latentwire.codecs.rotated import RotatedCodec
from latentwire.codecs.rounded import RoundedLinearCodec
from latentwire.codecs.scalar import ScalarCodec

FAMILIES: tuple[type[Codec], ...] = (
    LinearCodec,
    RoundedLinearCodec,
    AdapterCodec,
    ScalarCodec,
    IntegerCodec,
    Float8Codec,
    NormalFloatCodec,
    RotatedCodec,
    ProductCodec,
    ResidualCodec,
    AdaptedProductCodec,
)


def load_codec(folder: str | Path, own: Iterable[type[Codec]] = ()) -> Codec:
    """A saved codec of any family.

    Args:
        folder: where :meth:`Codec.save_pretrained` wrote it.
        own: families besides this package's.

    Raises:
        NotApplicable: there is none at this code dimension.
        ValueError: its family is unknown.
    """
    families = {family.family: family for family in (*FAMILIES, *own)}
    name = read_config(folder)["family"]
    if name not in families and name is not None:
        raise ValueError(f"{folder}: no codec family {name!r}; there are {', '.join(sorted(families))}")
    return families.get(name, LinearCodec).from_pretrained(folder)
