"""What a model reads of an arm on one split: rebuilt rows, once for answers and divergence.

Shape suffixes: U token types, D embedding dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs, rebuilt_rows, require_finite
from latentwire.arms_table import arm_row
from latentwire.evaluation.store import RowHashes


@dataclass(frozen=True)
class SplitRows:
    """Rebuilt rows of every token type of a split.

    Attributes:
        ids_U: the token ids, sorted.
        rows_UD: their rows in the model's dtype.
    """

    ids_U: torch.Tensor
    rows_UD: torch.Tensor

    @cached_property
    def hashes(self) -> RowHashes:
        """By which answers to these rows are named."""
        return RowHashes.of(self.ids_U, self.rows_UD)


def split_rows_of(arm: str, inputs: ArmInputs, prompts: pd.DataFrame, dtype: torch.dtype) -> SplitRows | None:
    """An arm's rows on a split; None if it reads token ids.

    Args:
        arm: its name.
        inputs: what it may use.
        prompts: the split.
        dtype: the model's, in which it reads embeddings.
    """
    sequences = [np.asarray(ids) for ids in prompts[arm_row(arm).prompt]]
    # Every token type of the split, not only one shard's: a matrix product's rounding depends on its shape.
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    rows_UD = rebuilt_rows(arm, inputs, ids_U)
    if rows_UD is None:
        return None
    require_finite(arm, ids_U, rows_UD := rows_UD.to(dtype))  # what fits into float32 may not fit into float16
    return SplitRows(ids_U, rows_UD)
