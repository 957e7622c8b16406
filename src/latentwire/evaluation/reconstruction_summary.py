"""Summaries of reconstruction sums; no torch, so that decisions start fast."""

from __future__ import annotations

import pandas as pd

# What each per-token column sums to, and the column that its mean is taken over.
MEANS = {"cosine": "tokens", "centred_cosine": "tokens", "relative_error": "tokens", "nearest_token": "tokens"}


def summarise(sums: pd.DataFrame) -> dict[str, float] | None:
    """FVU and the means over all tokens of :func:`question_sums`; None where there is no token."""
    total = sums.sum()
    if total["tokens"] == 0:
        return None
    summary = {name: float(total[name] / total[over]) for name, over in MEANS.items()}
    return {
        "fvu": float(total["squared_error"] / total["squared_deviation"]),
        **summary,
        "tokens": int(total["tokens"]),
    }
