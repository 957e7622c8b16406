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

# Arrow's threads wait for each other for ever if memory is limited (ulimit -v) and runs out.
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
        value = files.parse_json(Path(path).read_text(encoding="utf-8"))
    if keys and (not isinstance(value, dict) or not keys <= value.keys()):
        lacks = f"lacks {', '.join(sorted(keys - value.keys()))}" if isinstance(value, dict) else "is no object"
        raise InputError(f"{path} is of another kind: it {lacks}. It is made again by: {remake(path)}")
    return value


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """JSON objects, one per line; errors as of :func:`read_json`."""
    with reading(path):
        return files.parse_jsonl(Path(path).read_text(encoding="utf-8"))


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table, or some of its columns; errors as of :func:`read_json`."""
    import pandas as pd

    with reading(path):
        return pd.read_parquet(path, columns=None if columns is None else list(columns), **ONE_THREAD)


def read_measures(path: str | Path) -> pd.DataFrame:
    """A table whose measures have to be finite, as its producer left them; other errors as of :func:`read_json`.

    Raises:
        InputError: a measure is not finite; names column and row.
    """
    return _finite(read_parquet(path), path)


def read_tsv(path: str | Path) -> pd.DataFrame:
    """A table of tab-separated values, its numbers finite; errors as of :func:`read_measures`."""
    import pandas as pd

    with reading(path):
        table = pd.read_csv(path, sep="\t")
    return _finite(table, path)


def _finite(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    # Whole numbers may be missing: an untrained arm has no seed.
    for name, own in table.select_dtypes("float").items():
        if (wrong := ~own.abs().lt(float("inf"))).any():
            said = f"{name} is {own[wrong].iloc[0]} in row {int(wrong.to_numpy().argmax())}"
            raise InputError(f"{path} is not finite: {said}. It is made again by: {remake(path)}")
    return table
