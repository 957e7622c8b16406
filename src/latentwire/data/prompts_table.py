"""Prepared prompts on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from latentwire.errors import InputError


def read_prompts(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A split written by :func:`~latentwire.data.prepare.prepare`; list columns hold numpy arrays."""
    try:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise InputError(f"{path}: no prepared prompts there; run the data stage first") from None
