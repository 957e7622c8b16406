"""Reading what programs wrote: checked (:mod:`~latentwire.integrity`), and with an error that names the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentwire import files
from latentwire.errors import InputError
from latentwire.integrity import reading, remake

if TYPE_CHECKING:
    import pandas as pd

# Arrow's threads wait for each other for ever where memory is limited (ulimit -v) and runs out.
ONE_THREAD: dict[str, Any] = {"use_threads": False, "pre_buffer": False}


def read_json(path: str | Path, keys: frozenset[str] = frozenset()) -> Any:
    """A JSON value.

    Args:
        path: of the file.
        keys: that it must have as an object, such as those that a type in :mod:`~latentwire.results` requires.

    Raises:
        InputError: it is not what was written, can't be read, or is no such object.
    """
    with reading(path):
        value = files.read_json(path)
    if keys and (not isinstance(value, dict) or not keys <= value.keys()):
        lacks = f"lacks {', '.join(sorted(keys - value.keys()))}" if isinstance(value, dict) else "is no object"
        raise InputError(f"{path} is of another kind: it {lacks}. It is made again by: {remake(path)}")
    return value


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """JSON objects, one per line; errors as of :func:`read_json`."""
    with reading(path):
        return files.read_jsonl(path)


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table, or some of its columns; errors as of :func:`read_json`."""
    import pandas as pd

    with reading(path):
        return pd.read_parquet(path, columns=None if columns is None else list(columns), **ONE_THREAD)


def read_tsv(path: str | Path) -> pd.DataFrame:
    """A table of tab-separated values; errors as of :func:`read_json`."""
    import pandas as pd

    with reading(path):
        return pd.read_csv(path, sep="\t")
