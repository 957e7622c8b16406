"""Which codecs keep what share of the uncompressed model's F1, and the cheapest of them.

A codec is *shown to keep* a share c if the one-sided hypothesis that its F1 is at most c times the ceiling's is
rejected, paired over questions and clustered by article, after Holm's correction over all codecs: non-inferiority with
a relative margin of 1 − c (:mod:`latentwire.evaluation.noninferiority`). What is not shown may still be so: the loss
that such a sample finds stands beside it, and how many questions a codec needs that answers all of them like the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.decisions.evidence import ArmScores, DimensionResults
from latentwire.evaluation.noninferiority import Paired, fewest_questions, noninferiority_p
from latentwire.evaluation.paired import DETECTABLE
from latentwire.evaluation.statistics import difference_interval, holm
from latentwire.results import Kept

SHARES = (0.99, 0.999)
LEVEL = 0.025
"""Of the one-sided tests: that of a two-sided interval of 95%."""


def kept(dimensions: Sequence[DimensionResults], *, resamples: int, seed: int) -> list[Kept]:
    """For each of :data:`SHARES` what is shown of an experiment's codecs on ``final``.

    Args:
        dimensions: the results at every code dimension.
        resamples, seed: of the bootstrap.
    """
    bits, pairs = {}, {}
    for results in dimensions:
        for arm in ordered_arms(results.rates):
            name = codec_name(arm, results.k)
            bits[name] = results.rates[arm]["bits_per_parameter"]
            pairs[name] = _paired(results.arms[arm], results.arms["text"])
    errors = [
        difference_interval(own.a_N, own.b_N, own.article_N, resamples=resamples, seed=seed).standard_error or 0.0
        for own in pairs.values()
    ]
    detectable = DETECTABLE * sorted(errors)[len(errors) // 2] if errors else None
    found: list[Kept] = []
    for share in SHARES:
        tested = {
            name: noninferiority_p(own, (1 - share) * own.b_N, resamples=resamples, seed=seed)
            for name, own in pairs.items()
        }
        adjusted = holm({name: p for name, p in tested.items() if p is not None})
        shown = [
            name for name in sorted(bits, key=lambda name: (bits[name], name)) if adjusted.get(name, 1.0) <= LEVEL
        ]
        found.append(
            {
                "share": share,
                "detectable": detectable,
                "needed": _needed(list(pairs.values()), share),
                "cheapest": shown[0] if shown else None,
                "shown": shown,
                "bits": bits,
                "p": {name: adjusted.get(name) for name in bits},
            }
        )
    return found


def _needed(pairs: Sequence[Paired], share: float) -> int | None:
    """How many questions in these articles show one of these codecs, if it answers all of them like the text."""
    if not pairs or not (ceiling := float(pairs[0].b_N.mean())):
        return None
    return math.ceil(fewest_questions((1 - share) * ceiling, LEVEL / len(pairs), pairs[0].effective_articles))


def codec_name(arm: str, k: int) -> str:
    """An arm's name over all code dimensions of an experiment."""
    return f"{arm}:{k}" if arm_row(arm).sized else arm


def _paired(codec: ArmScores, text: ArmScores) -> Paired:
    own = codec.f1.merge(text.f1[["id", "f1"]], on="id", suffixes=("", "_text"), validate="one_to_one")
    return Paired(own["f1"].to_numpy(), own["f1_text"].to_numpy(), own["article"].to_numpy())
