"""Which codec to take at which rate: the one that moves the model's predictions least.

Picked by the same questions that its KL is reported on, so the least of several is a little too small; the paired
ratio to the next best says whether the choice between the two is clear.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from latentwire.arms_table import ordered_arms
from latentwire.decisions.evidence import DimensionResults
from latentwire.decisions.kept import codec_name
from latentwire.evaluation.statistics import ratio_interval
from latentwire.results import IntervalRecord, MethodAtRate

RATES = (1.0, 2.0, 4.0, 8.0)
"""Bits per table parameter."""
TOLERANCE = 0.1
"""By which a codec's bits may be above a rate: scales and codebooks come on top of the codes."""


def methods(dimensions: Sequence[DimensionResults], *, resamples: int, seed: int) -> list[MethodAtRate]:
    """The codec of the least KL at each of :data:`RATES`; none at a rate that all codecs exceed, or without KL.

    Args:
        dimensions: the results at every code dimension.
        resamples, seed: of the bootstrap.
    """
    bits, sums = {}, {}
    for results in dimensions:
        for arm in ordered_arms(results.rates):
            measured = results.divergence.get((arm, "prompt"))
            if measured is not None and measured["positions"].sum():
                name = codec_name(arm, results.k)
                bits[name], sums[name] = results.rates[arm]["bits_per_parameter"], measured
    bootstrap = {"resamples": resamples, "seed": seed}
    found: list[MethodAtRate] = []
    for rate in RATES:
        within = [name for name in bits if bits[name] <= (1 + TOLERANCE) * rate]
        if not within:
            continue
        best, *others = sorted(within, key=lambda name: (_kl(sums[name]), bits[name], name))
        following = others[0] if others else None
        found.append(
            {
                "bits": rate,
                "codec": best,
                "codec_bits": bits[best],
                "kl": _interval(sums[best], "kl", "positions", bootstrap),
                "next_best": following,
                "next_bits": None if following is None else bits[following],
                "ratio": None if following is None else kl_ratio(sums[best], sums[following], bootstrap),
            }
        )
    return found


def kl_ratio(a: pd.DataFrame, b: pd.DataFrame, bootstrap: dict[str, int]) -> IntervalRecord:
    """KL of one arm over another's at the same positions, paired by question, with its interval over articles.

    Args:
        a, b: sums per question.
        bootstrap: ``resamples`` and ``seed``.
    """
    both = a.merge(b, on=["id", "article", "positions"], suffixes=("_a", "_b"), validate="one_to_one")
    assert len(a) == len(b) == len(both), "measured at different positions"
    return _interval(both, "kl_a", "kl_b", bootstrap)


def _interval(sums: pd.DataFrame, above: str, below: str, bootstrap: dict[str, int]) -> IntervalRecord:
    values = (sums[name].to_numpy() for name in (above, below, "article"))
    return ratio_interval(*values, **bootstrap).to_json()


def _kl(sums: pd.DataFrame) -> float:
    return float(sums["kl"].sum() / sums["positions"].sum())
