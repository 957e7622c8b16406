"""Prepared prompts on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from latentwire.artefacts import read_parquet
from latentwire.integrity import reading


def read_prompts(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A split written by :func:`~latentwire.data.prepare.prepare`; list columns hold numpy arrays."""
    return read_parquet(path, columns)


def count_prompts(path: str | Path) -> int:
    """The number of prompts in a split, which is not read."""
    with reading(path), ParquetFile(path) as stored:
        return int(stored.metadata.num_rows)


def iterate_prompt_ids(path: str | Path) -> Iterator[np.ndarray]:
    """The token ids of one prompt after another, a few thousand prompts in memory."""
    with reading(path), ParquetFile(path, pre_buffer=False) as stored:
        for batch in stored.iter_batches(columns=["input_ids"], batch_size=4096, use_threads=False):
            yield from batch.column(0).to_numpy(zero_copy_only=False)
