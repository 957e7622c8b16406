"""How few bits before the model notices: rate against harm of an experiment's codecs.

A codec is *shown to keep* a share c of the uncompressed model's F1 if the one-sided hypothesis that its F1 is at most
c times the ceiling's is rejected, paired over questions and clustered by article, after Holm's correction over all
codecs. A codec is in the Pareto set if none of at most its bits has a smaller KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.artefacts import read_json
from latentwire.decisions.evidence import read_dimension
from latentwire.evaluation.paired import DETECTABLE
from latentwire.evaluation.statistics import holm, p_value
from latentwire.layout import Layout
from latentwire.results import VERDICT_KEYS, Divergence, IntervalRecord, Verdict

KEPT = 0.99
LEVEL = 0.025
"""Of the one-sided tests: that of a two-sided interval of 95%."""


class Point(TypedDict):
    """A codec of an experiment on ``final``.

    ``bits`` are per table parameter; ``kl`` and ``same_top`` are at prompt positions, None if nothing was measured;
    ``p`` is Holm's for keeping the share, None where it can't be tested.
    """

    codec: str
    legend: str
    bits: float
    megabytes: float
    f1: IntervalRecord
    retention: IntervalRecord
    kl: IntervalRecord | None
    same_top: IntervalRecord | None
    p: float | None
    shown: bool
    pareto: bool


class Frontier(TypedDict):
    """The points by bits, with what they are measured on.

    ``detectable`` is the loss of F1 that 80% of such samples find in a test at 5%, the median over codecs.
    """

    experiment: str
    kept: float
    questions: int
    articles: int
    confidence: float
    ceiling: IntervalRecord
    detectable: float | None
    cheapest: str | None
    points: list[Point]


def frontier(root: Path) -> Frontier:
    """The frontier of an experiment whose verdict is there.

    Args:
        root: the experiment's folder of results.
    """
    paths = Layout(str(root))
    verdict: Verdict = read_json(paths.verdict, VERDICT_KEYS)
    points: dict[str, Point] = {}
    p_values: dict[str, float] = {}
    errors = []
    for entry in verdict["entries"]:
        scores = read_dimension(paths, entry["k"], entry["seeds"]).arms
        for arm in ordered_arms(entry["arms"]):
            found, row = entry["arms"][arm], arm_row(arm)
            if found["rate"] is None:
                continue
            name = f"{arm}:{entry['k']}" if row.sized else arm
            measured: dict[str, Divergence] = found["divergence"] or {}
            prompt = measured.get("prompt")
            points[name] = {
                "codec": name,
                "legend": row.legend,
                "bits": found["rate"]["bits_per_parameter"],
                "megabytes": found["rate"]["megabytes"],
                "f1": found["f1"],
                "retention": found["retention"],
                "kl": prompt["kl"] if prompt else None,
                "same_top": prompt["same_top"] if prompt else None,
                "p": None,
                "shown": False,
                "pareto": False,
            }
            own = scores[arm].f1.merge(scores["text"].f1, on="id", suffixes=("", "_text"))
            f1 = found["f1"]
            p = _one_sided(own["f1"] - KEPT * own["f1_text"], own["article"], f1["resamples"], f1["seed"])
            if p is not None:
                p_values[name] = p
            if (error := found["difference_to_text"]["standard_error"]) is not None:
                errors.append(error)
    for name, p in holm(p_values).items():
        points[name] |= {"p": p, "shown": p <= LEVEL}
    ordered = sorted(points.values(), key=lambda point: (point["bits"], point["codec"]))
    for number, point in enumerate(ordered):
        point["pareto"] = _is_pareto(point, ordered[:number])
    text = verdict["entries"][0]["arms"]["text"]["f1"]
    return {
        "experiment": verdict["experiment"],
        "kept": KEPT,
        "questions": text["questions"],
        "articles": text["articles"],
        "confidence": text["confidence"],
        "ceiling": text,
        "detectable": DETECTABLE * sorted(errors)[len(errors) // 2] if errors else None,
        "cheapest": next((point["codec"] for point in ordered if point["shown"]), None),
        "points": ordered,
    }


def _one_sided(difference_N: Any, article_N: Any, resamples: int, seed: int) -> float | None:
    """The p-value of the hypothesis that the mean difference is not above 0."""
    p = p_value(difference_N.to_numpy(), article_N.to_numpy(), 0.0, resamples=resamples, seed=seed)
    if p is None:
        return None
    return p / 2 if difference_N.mean() > 0 else 1 - p / 2


def _is_pareto(point: Point, cheaper: Sequence[Point]) -> bool:
    kl = _kl(point)
    return kl is not None and all(other is None or kl < other for other in map(_kl, cheaper))


def _kl(point: Point) -> float | None:
    return None if point["kl"] is None else point["kl"]["estimate"]
