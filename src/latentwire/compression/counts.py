"""Token counts: all that PCA and Phase 1 need to know of a corpus, whatever its size.

An input embedding depends on its token id alone, so statistics over token occurrences are statistics over table
rows weighted by their counts. Counts of two corpora add up, so a corpus of any size can be counted in parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from latentwire.errors import InputError
from latentwire.files import atomic_path
from latentwire.integrity import reading

FittingWeighting = Literal["counts", "root", "type"]
CHUNK_TOKENS = 1 << 20
# Rows whose sum stays in a core's cache.
SUM_ROWS = 256


def _chunks(sequences: Iterable[Sequence[int] | np.ndarray]) -> Iterator[np.ndarray]:
    """Ids in large chunks: each bincount costs O(V) on top of the chunk."""
    pieces: list[np.ndarray] = []
    tokens = 0
    for ids in sequences:
        pieces.append(np.asarray(ids, dtype=np.int64))
        tokens += len(pieces[-1])
        if tokens >= CHUNK_TOKENS:
            yield np.concatenate(pieces)
            pieces, tokens = [], 0
    if tokens:
        yield np.concatenate(pieces)


def count_tokens(sequences: Iterable[Sequence[int] | np.ndarray], vocab_size: int) -> torch.Tensor:
    """How often each token id occurs.

    Args:
        sequences: unpadded token ids; an iterator is read once, in constant memory.
        vocab_size: rows of the embedding table, V.

    Returns:
        Counts, int64 ``[V]``.

    Raises:
        InputError: an id is outside the table.
    """
    counts_V = np.zeros(vocab_size, dtype=np.int64)
    for ids_N in _chunks(sequences):
        if not 0 <= ids_N.min() <= ids_N.max() < vocab_size:
            bad = int(ids_N.max() if ids_N.max() >= vocab_size else ids_N.min())
            raise InputError(
                f"token id {bad} is outside the embedding table of {vocab_size} rows: "
                "the tokenizer and the model do not belong together"
            )
        counts_V += np.bincount(ids_N, minlength=vocab_size)
    return torch.from_numpy(counts_V)


def count_splits(
    prompts: Iterable[Sequence[int] | np.ndarray], available: int, samples: str | int, vocab_size: int
) -> dict[str, torch.Tensor]:
    """Counts of the PCA split (``pca``) and of all training prompts (``train``), which are read once.

    Args:
        prompts: ``available`` training prompts; the PCA split is the first of them.
        available: how many.
        samples: how many PCA sees, as in :func:`pca_sample_size`.
        vocab_size: as in :func:`count_tokens`, as are the errors.

    Raises:
        InputError: ``samples`` is not between 1 and ``available``.
    """
    stream = iter(prompts)
    pca_V = count_tokens(itertools.islice(stream, pca_sample_size(samples, available)), vocab_size)
    return {"pca": pca_V, "train": pca_V + count_tokens(stream, vocab_size)}


def fitting_weights(counts_V: torch.Tensor, weighting: FittingWeighting) -> torch.Tensor:
    """What a token type weighs in a fit, ``[V]``.

    Args:
        counts_V: token counts.
        weighting: ``counts``, ``root`` (the square root of the count plus one) or ``type`` (all types weigh the same).
    """
    powers = {"root": 0.5, "type": 0.0}
    return counts_V if weighting == "counts" else (counts_V + 1).double() ** powers[weighting]


def mean_embedding(table_VD: torch.Tensor, weights_V: torch.Tensor) -> torch.Tensor:
    """The mean of all token occurrences, float64 ``[D]``.

    Args:
        table_VD: embeddings, any float dtype.
        weights_V: occurrences of each row; rows without weight are not read.

    Raises:
        FloatingPointError: an occurring row holds NaN or an infinity.
    """
    weights_V = weights_V.double()
    sum_D = torch.zeros(table_VD.shape[1], dtype=torch.float64)
    for rows_U in weights_V.nonzero().flatten().split(SUM_ROWS):
        block_UD = table_VD[rows_U]
        if not block_UD.isfinite().all():
            bad = int(rows_U[~block_UD.isfinite().all(dim=1)][0])
            raise FloatingPointError(f"embedding row {bad} is not finite")
        sum_D += weights_V[rows_U] @ block_UD.double()
    return sum_D / float(weights_V.sum())


def save_counts(path: str | Path, **counts_V: torch.Tensor) -> None:
    """Write named count vectors, atomically."""
    with atomic_path(path) as temporary:
        save_file(counts_V, temporary)


def load_counts(path: str | Path) -> dict[str, torch.Tensor]:
    """The named count vectors written by :func:`save_counts`."""
    with reading(path):
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
