"""Codecs: ways to store the embedding table in fewer bytes and to rebuild its rows, one small module per family.

The families are in :mod:`latentwire.codecs.families`, so that one of them is no user of the others.
"""

from latentwire.codecs.base import Codec, NotApplicable

__all__ = ["Codec", "NotApplicable"]
