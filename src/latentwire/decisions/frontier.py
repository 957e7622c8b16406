"""How few bits before the model notices: rate against harm of an experiment's codecs.

What is shown of a codec is the verdict's (:mod:`latentwire.decisions.kept`). A codec is in the Pareto set if none of
at most its bits has a smaller KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from latentwire.arms_table import Noise, arm_row, ordered_arms
from latentwire.artefacts import read_json
from latentwire.decisions.kept import codec_name
from latentwire.layout import Layout
from latentwire.results import OTHER_DOMAIN, VERDICT_KEYS, Divergence, IntervalRecord, Verdict


class Elsewhere(TypedDict):
    """A codec on another domain's text, with intervals over documents; ``ratio`` is to the KL at prompt positions."""

    kl: IntervalRecord
    same_top: IntervalRecord
    ratio: IntervalRecord


class Point(TypedDict):
    """A codec of an experiment on ``final``.

    ``bits`` are per table parameter; ``kl`` and ``same_top`` are at prompt positions, None if nothing was measured;
    ``fvu`` is by occurrence on ``gate``. ``p`` is Holm's for keeping the share, None if it can't be tested. Without
    another domain's text there is no ``other_domain``.
    """

    codec: str
    legend: str
    bits: float
    megabytes: float
    f1: IntervalRecord
    retention: IntervalRecord
    kl: IntervalRecord | None
    same_top: IntervalRecord | None
    fvu: float | None
    p: float | None
    shown: bool
    pareto: bool
    other_domain: NotRequired[Elsewhere]


class NoisePoint(TypedDict):
    """Original rows with a random error of a codec's size, the mean over its draws."""

    codec: str
    noise: Noise
    fvu: float
    kl: IntervalRecord
    f1: IntervalRecord


class OtherText(TypedDict):
    """What the codecs are measured on beside the experiment's data."""

    passages: int
    documents: int
    positions: int


class Frontier(TypedDict):
    """The points by bits, with what they are measured on.

    ``noise`` is by FVU. ``other_domain`` is there if a codec was measured on another domain's text.
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
    noise: list[NoisePoint]
    other_domain: NotRequired[OtherText]


def frontier(root: Path) -> Frontier:
    """The frontier of an experiment whose verdict is there.

    Args:
        root: the experiment's folder of results.
    """
    paths = Layout(str(root))
    verdict: Verdict = read_json(paths.verdict, VERDICT_KEYS)
    kept = verdict["kept"][0]
    points: dict[str, Point] = {}
    noise: dict[str, NoisePoint] = {}
    text_elsewhere: OtherText | None = None
    for entry in verdict["entries"]:
        for arm in ordered_arms(entry["arms"]):
            found, row = entry["arms"][arm], arm_row(arm)
            measured: dict[str, Divergence] = found["divergence"] or {}
            prompt = measured.get("prompt")
            error = entry["reconstruction"].get(arm, {}).get("all")
            if row.noise and row.error_of and prompt and error:
                noise[codec_name(arm, entry["k"])] = {
                    "codec": codec_name(row.error_of, entry["k"]),
                    "noise": row.noise,
                    "fvu": error["fvu"],
                    "kl": prompt["kl"],
                    "f1": found["f1"],
                }
            if found["rate"] is None:
                continue
            name = codec_name(arm, entry["k"])
            points[name] = {
                "codec": name,
                "legend": row.legend,
                "bits": found["rate"]["bits_per_parameter"],
                "megabytes": found["rate"]["megabytes"],
                "f1": found["f1"],
                "retention": found["retention"],
                "kl": prompt["kl"] if prompt else None,
                "same_top": prompt["same_top"] if prompt else None,
                "fvu": error["fvu"] if error else None,
                "p": kept["p"][name],
                "shown": name in kept["shown"],
                "pareto": False,
            }
            if (other := measured.get(OTHER_DOMAIN)) is not None and "kl_over_prompt" in other:
                points[name]["other_domain"] = {
                    "kl": other["kl"],
                    "same_top": other["same_top"],
                    "ratio": other["kl_over_prompt"],
                }
                text_elsewhere = {
                    "passages": other["kl"]["questions"],
                    "documents": other["kl"]["articles"],
                    "positions": other["positions"],
                }
    ordered = sorted(points.values(), key=lambda point: (point["bits"], point["codec"]))
    for number, point in enumerate(ordered):
        point["pareto"] = _is_pareto(point, ordered[:number])
    text = verdict["entries"][0]["arms"]["text"]["f1"]
    result: Frontier = {
        "experiment": verdict["experiment"],
        "kept": kept["share"],
        "questions": text["questions"],
        "articles": text["articles"],
        "confidence": text["confidence"],
        "ceiling": text,
        "detectable": kept["detectable"],
        "cheapest": kept["cheapest"],
        "points": ordered,
        "noise": sorted(noise.values(), key=lambda own: (own["fvu"], own["codec"], own["noise"])),
    }
    if text_elsewhere is not None:
        result["other_domain"] = text_elsewhere
    return result


def _is_pareto(point: Point, cheaper: Sequence[Point]) -> bool:
    kl = _kl(point)
    return kl is not None and all(other is None or kl < other for other in map(_kl, cheaper))


def _kl(point: Point) -> float | None:
    return None if point["kl"] is None else point["kl"]["estimate"]
