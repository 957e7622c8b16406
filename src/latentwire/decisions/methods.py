"""Which codec to take at which rate: the one that moves the model's predictions least.

Picked by the same questions that its KL is reported on, so the least of several is a little too small; the paired
ratio to the next best says whether the choice between the two is clear.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from latentwire.arms_table import ordered_arms
from latentwire.decisions.divergences import kl_ratio, per_position
from latentwire.decisions.evidence import DimensionResults
from latentwire.decisions.kept import codec_name
from latentwire.results import MethodAtRate

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
                "kl": per_position(sums[best], "kl", **bootstrap),
                "next_best": following,
                "next_bits": None if following is None else bits[following],
                "ratio": None if following is None else kl_ratio(sums[best], sums[following], **bootstrap),
            }
        )
    return found


def _kl(sums: pd.DataFrame) -> float:
    return float(sums["kl"].sum() / sums["positions"].sum())
