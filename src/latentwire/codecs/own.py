"""Codecs of a user's own, from Python files. No fingerprint follows this: rules name the content of the files."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from latentwire.codecs.base import Codec
from latentwire.errors import InputError


def own_module(file: Path) -> ModuleType:
    """The module in ``file``: ``fit(table_VD, counts_V, compress_dim)`` and the :class:`Codec` that it returns.

    Raises:
        InputError: it is not there, can't be run, or lacks one of the two.
    """
    spec = spec_from_file_location(f"latentwire_own_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} (codecs) should be a Python file, with a name that ends in .py")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{file} (codecs) can't be imported: {error!r}") from error
    if not callable(getattr(module, "fit", None)) or not _families(module):
        raise InputError(f"{file} (codecs) must define fit(table_VD, counts_V, compress_dim) and a subclass of Codec")
    return module


def own_families(file: Path) -> list[type[Codec]]:
    """The codec classes that a file defines."""
    return _families(own_module(file))


def _families(module: ModuleType) -> list[type[Codec]]:
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Codec)]
    return [family for family in found if family.__module__ == module.__name__]
