"""Reconstruction errors, summed per question, so that every figure can have an interval.

A token's errors depend on its id alone; they are computed once per type and gathered for each question.

Shape suffixes: V table rows, U token types, D embedding dimensions, Q questions, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from latentwire.compression.nearest import nearest_rows
from latentwire.evaluation.reconstruction_summary import MEANS


@dataclass(frozen=True)
class TypeErrors:
    """Errors of each token type, float64 ``[U]``: see :func:`type_errors`."""

    squared_error_U: np.ndarray
    squared_deviation_U: np.ndarray
    cosine_U: np.ndarray
    centred_cosine_U: np.ndarray
    relative_error_U: np.ndarray
    nearest_token_U: np.ndarray
    reading_error_U: np.ndarray | None = None
    reading_size_U: np.ndarray | None = None


def type_errors(
    ids_U: torch.Tensor,
    rebuilt_UD: torch.Tensor,
    table_VD: torch.Tensor,
    mean_D: torch.Tensor,
    reading_DD: torch.Tensor | None = None,
) -> TypeErrors:
    """Reconstruction errors of token types.

    Args:
        ids_U: token ids.
        rebuilt_UD: their rebuilt embeddings x̂.
        table_VD: the original table; row ``ids_U[u]`` is x.
        mean_D: μ of the PCA split.
        reading_DD: what the first layer reads (:func:`~latentwire.first_layer.first_layer_reading`), if it is known.

    Returns:
        ‖x − x̂‖², ‖x − μ‖², cos(x, x̂), cos(x − μ, x̂ − μ), ‖x − x̂‖/‖x‖, and whether the nearest row of the table
        to x̂ is the token's own (an equal row counts); with ``reading_DD`` the squared error of what the first layer
        reads, and its squared size.
    """
    original_UD, rebuilt_UD = table_VD[ids_U].double(), rebuilt_UD.double()
    mean_D = mean_D.double()
    error_U = (original_UD - rebuilt_UD).square().sum(dim=1)
    nearest_U = nearest_rows(rebuilt_UD, table_VD)
    hit_U = (table_VD[nearest_U] == table_VD[ids_U]).all(dim=1)
    reading = () if reading_DD is None else reading_errors(original_UD, rebuilt_UD, reading_DD)
    return TypeErrors(
        error_U.numpy(),
        (original_UD - mean_D).square().sum(dim=1).numpy(),
        F.cosine_similarity(original_UD, rebuilt_UD, dim=1).numpy(),
        F.cosine_similarity(original_UD - mean_D, rebuilt_UD - mean_D, dim=1).numpy(),
        (error_U.sqrt() / original_UD.norm(dim=1).clamp_min(1e-30)).numpy(),
        hit_U.double().numpy(),
        *(own_U.numpy() for own_U in reading),
    )


def reading_errors(
    original_UD: torch.Tensor, rebuilt_UD: torch.Tensor, reading_DD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error and squared size of what the first layer reads of rows, both float64 ``[U]``.

    Args:
        original_UD, rebuilt_UD: rows of token types U.
        reading_DD: of :func:`~latentwire.first_layer.first_layer_reading`.
    """
    read_UD, rebuilt_UD = (
        rows.double() / rows.double().square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-30)
        for rows in (original_UD, rebuilt_UD)
    )
    error_UD, reading_DD = read_UD - rebuilt_UD, reading_DD.double()
    return ((error_UD @ reading_DD) * error_UD).sum(dim=1), ((read_UD @ reading_DD) * read_UD).sum(dim=1)


def question_sums(
    errors: TypeErrors, ids_U: torch.Tensor, sequences: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> pd.DataFrame:
    """Sums over the masked tokens of each question: one row per question, one column per quantity, and ``tokens``.

    Args:
        errors: of the types ``ids_U`` (sorted).
        ids_U: sorted token ids that cover every sequence.
        sequences: token ids of each question's prompt.
        masks: which of them count.

    Raises:
        KeyError: a masked token is not among ``ids_U``.
    """
    lengths_Q = np.array([int(mask.sum()) for mask in masks])
    tokens_N = np.concatenate([ids[mask] for ids, mask in zip(sequences, masks, strict=True)])
    index_N = np.searchsorted(ids_U.numpy(), tokens_N).clip(max=len(ids_U) - 1)
    if (missing_N := ids_U.numpy()[index_N] != tokens_N).any():
        raise KeyError(f"token id {tokens_N[missing_N][0]} is in a prompt but not among the measured types")
    owner_N = np.repeat(np.arange(len(sequences)), lengths_Q)
    columns = {"tokens": lengths_Q.astype(float)}
    reading = () if errors.reading_error_U is None else ("reading_error", "reading_size")
    for name in ("squared_error", "squared_deviation", *MEANS, *reading):
        values_N = getattr(errors, f"{name}_U")[index_N]
        columns[name] = np.bincount(owner_N, weights=values_N, minlength=len(sequences))
    return pd.DataFrame(columns)


def summarise_types(errors: TypeErrors, chosen_U: np.ndarray) -> dict[str, float] | None:
    """The same figures with every chosen type counted once; None if none is chosen."""
    if not chosen_U.any():
        return None
    means = {name: float(getattr(errors, f"{name}_U")[chosen_U].mean()) for name in MEANS}
    fvu = float(errors.squared_error_U[chosen_U].sum() / errors.squared_deviation_U[chosen_U].sum())
    return {"fvu": fvu, **means, "types": int(chosen_U.sum())}
