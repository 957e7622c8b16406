"""Intervals of how far arms move the model's predictions, from sums per question."""

from __future__ import annotations

import pandas as pd

from latentwire.evaluation.statistics import ratio_interval
from latentwire.results import IntervalRecord


def per_position(sums: pd.DataFrame, column: str, *, resamples: int, seed: int) -> IntervalRecord:
    """A measure's mean over positions, with its interval over articles.

    Args:
        sums: per question: ``article``, ``positions`` and the measure.
        column: the measure, such as ``kl`` (nats) or ``same_top``.
        resamples, seed: of the bootstrap.
    """
    values = (sums[name].to_numpy() for name in (column, "positions", "article"))
    return ratio_interval(*values, resamples=resamples, seed=seed).to_json()


def kl_ratio(a: pd.DataFrame, b: pd.DataFrame, *, resamples: int, seed: int) -> IntervalRecord:
    """KL of one arm over another's at the same positions, paired by question, with its interval over articles.

    Args:
        a, b: sums per question: ``id``, ``article``, ``positions`` and ``kl``.
        resamples, seed: of the bootstrap.
    """
    both = a.merge(b, on=["id", "article", "positions"], suffixes=("_a", "_b"), validate="one_to_one")
    assert len(a) == len(b) == len(both), "measured at different positions"
    values = (both[name].to_numpy() for name in ("kl_a", "kl_b", "article"))
    return ratio_interval(*values, resamples=resamples, seed=seed).to_json()
