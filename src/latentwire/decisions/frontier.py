"""How few bits before the model notices: rate against harm of an experiment's codecs.

What is shown of a codec is the verdict's (:mod:`latentwire.decisions.kept`). A codec is in the Pareto set if none of
at most its bits has a smaller KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.artefacts import read_json
from latentwire.decisions.kept import codec_name
from latentwire.layout import Layout
from latentwire.results import VERDICT_KEYS, Divergence, IntervalRecord, Verdict


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
    kept = verdict["kept"][0]
    points: dict[str, Point] = {}
    for entry in verdict["entries"]:
        for arm in ordered_arms(entry["arms"]):
            found, row = entry["arms"][arm], arm_row(arm)
            if found["rate"] is None:
                continue
            name = codec_name(arm, entry["k"])
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
                "p": kept["p"][name],
                "shown": name in kept["shown"],
                "pareto": False,
            }
    ordered = sorted(points.values(), key=lambda point: (point["bits"], point["codec"]))
    for number, point in enumerate(ordered):
        point["pareto"] = _is_pareto(point, ordered[:number])
    text = verdict["entries"][0]["arms"]["text"]["f1"]
    return {
        "experiment": verdict["experiment"],
        "kept": kept["share"],
        "questions": text["questions"],
        "articles": text["articles"],
        "confidence": text["confidence"],
        "ceiling": text,
        "detectable": kept["detectable"],
        "cheapest": kept["cheapest"],
        "points": ordered,
    }


def _is_pareto(point: Point, cheaper: Sequence[Point]) -> bool:
    kl = _kl(point)
    return kl is not None and all(other is None or kl < other for other in map(_kl, cheaper))


def _kl(point: Point) -> float | None:
    return None if point["kl"] is None else point["kl"]["estimate"]
