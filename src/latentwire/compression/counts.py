"""Token counts: all that PCA and Phase 1 need to know of a corpus, whatever its size.

An input embedding depends on its token id alone, so statistics over token occurrences are statistics over table
rows weighted by their counts. Counts of two corpora add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from latentwire.errors import InputError
from latentwire.files import atomic_path


def count_tokens(sequences: Iterable[Sequence[int] | np.ndarray], vocab_size: int) -> torch.Tensor:
    """How often each token id occurs.

    Args:
        sequences: unpadded token ids.
        vocab_size: rows of the embedding table, V.

    Returns:
        Counts, int64 ``[V]``.

    Raises:
        ValueError: an id is outside the table.
    """
    counts_V = np.zeros(vocab_size, dtype=np.int64)
    for ids in sequences:
        ids_N = np.asarray(ids, dtype=np.int64)
        if ids_N.size and not 0 <= ids_N.min() <= ids_N.max() < vocab_size:
            bad = int(ids_N.max() if ids_N.max() >= vocab_size else ids_N.min())
            raise ValueError(
                f"token id {bad} is outside the embedding table of {vocab_size} rows: "
                "the tokenizer and the model do not belong together"
            )
        counts_V += np.bincount(ids_N, minlength=vocab_size)
    return torch.from_numpy(counts_V)


def save_counts(path: str | Path, **counts_V: torch.Tensor) -> None:
    """Write named count vectors, atomically."""
    with atomic_path(path) as temporary:
        save_file(counts_V, temporary)


def load_counts(path: str | Path) -> dict[str, torch.Tensor]:
    """The named count vectors written by :func:`save_counts`."""
    return load_file(path)


def pca_sample_size(samples: str | int, available: int) -> int:
    """How many training prompts PCA sees.

    Args:
        samples: a number, ``all``, or ``auto``: min(5000, available // 2), as the plan has it.
        available: training prompts.

    Raises:
        InputError: the number is not between 1 and ``available``.
    """
    if samples == "auto":
        return max(1, min(5000, available // 2))
    chosen = available if samples == "all" else int(samples)
    if not 1 <= chosen <= available:
        raise InputError(
            f"pca.samples {chosen} must be between 1 and the {available} training prompts, 'all' or 'auto'"
        )
    return chosen
