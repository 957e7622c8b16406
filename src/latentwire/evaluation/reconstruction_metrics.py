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


def type_errors(
    ids_U: torch.Tensor, rebuilt_UD: torch.Tensor, table_VD: torch.Tensor, mean_D: torch.Tensor
) -> TypeErrors:
    """Reconstruction errors of token types.

    Args:
        ids_U: token ids.
        rebuilt_UD: their rebuilt embeddings x̂.
        table_VD: the original table; row ``ids_U[u]`` is x.
        mean_D: μ of the PCA split.

    Returns:
        ‖x − x̂‖², ‖x − μ‖², cos(x, x̂), cos(x − μ, x̂ − μ), ‖x − x̂‖/‖x‖, and whether the nearest row of the table
        to x̂ is the token's own (an equal row counts).
    """
    original_UD, rebuilt_UD = table_VD[ids_U].double(), rebuilt_UD.double()
    mean_D = mean_D.double()
    error_U = (original_UD - rebuilt_UD).square().sum(dim=1)
    nearest_U = nearest_rows(rebuilt_UD, table_VD)
    hit_U = (table_VD[nearest_U] == table_VD[ids_U]).all(dim=1)
    return TypeErrors(
        error_U.numpy(),
        (original_UD - mean_D).square().sum(dim=1).numpy(),
        F.cosine_similarity(original_UD, rebuilt_UD, dim=1).numpy(),
        F.cosine_similarity(original_UD - mean_D, rebuilt_UD - mean_D, dim=1).numpy(),
        (error_U.sqrt() / original_UD.norm(dim=1).clamp_min(1e-30)).numpy(),
        hit_U.double().numpy(),
    )


def question_sums(
    errors: TypeErrors, ids_U: torch.Tensor, sequences: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> pd.DataFrame:
    """Sums over the masked tokens of each question: one row a question, one column a quantity, and ``tokens``.

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
    for name in ("squared_error", "squared_deviation", *MEANS):
        values_N = getattr(errors, f"{name}_U")[index_N]
        columns[name] = np.bincount(owner_N, weights=values_N, minlength=len(sequences))
    return pd.DataFrame(columns)


def summarise_types(errors: TypeErrors, chosen_U: np.ndarray) -> dict[str, float] | None:
    """The same figures with every chosen type counted once; None where none is chosen."""
    if not chosen_U.any():
        return None
    means = {name: float(getattr(errors, f"{name}_U")[chosen_U].mean()) for name in MEANS}
    fvu = float(errors.squared_error_U[chosen_U].sum() / errors.squared_deviation_U[chosen_U].sum())
    return {"fvu": fvu, **means, "types": int(chosen_U.sum())}
