"""Summaries of reconstruction sums; no torch, so that decisions start fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pandas as pd

if TYPE_CHECKING:
    from latentwire.results import Reconstruction

# Columns whose means are taken over the tokens.
MEANS = ("cosine", "centred_cosine", "relative_error", "nearest_token")


def summarise(sums: pd.DataFrame) -> Reconstruction | None:
    """FVU and the means over all tokens of :func:`question_sums`; None if there is no token."""
    total = sums.sum()
    if total["tokens"] == 0:
        return None
    means = {name: float(total[name] / total["tokens"]) for name in MEANS}
    fvu = float(total["squared_error"] / total["squared_deviation"])
    return cast("Reconstruction", {"fvu": fvu, **means, "tokens": int(total["tokens"])})
