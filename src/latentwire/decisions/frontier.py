"""How few bits before the model notices: rate against harm of an experiment's codecs.

What is shown of a codec is the verdict's (:mod:`latentwire.decisions.kept`). A codec is in the Pareto set if none of
at most its bits has a smaller KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from latentwire.arms_table import Noise, Variant, arm_row, ordered_arms
from latentwire.artefacts import read_json
from latentwire.codecs.base import Codec
from latentwire.decisions.codec_times import seconds_to_decode, seconds_to_make
from latentwire.decisions.kept import codec_name
from latentwire.layout import Layout
from latentwire.progress import finished_jobs
from latentwire.results import (
    OTHER_DOMAIN,
    VERDICT_KEYS,
    DimensionVerdict,
    IntervalRecord,
    Kept,
    MethodAtRate,
    Verdict,
)


class Elsewhere(TypedDict):
    """A codec on another domain's text, with intervals over documents; ``ratio`` is to the KL at prompt positions."""

    kl: IntervalRecord
    same_top: IntervalRecord
    ratio: IntervalRecord


class Keeps(TypedDict):
    """Whether a codec is shown to keep a share of the text's F1; ``p`` is Holm's, None if it can't be tested."""

    p: float | None
    shown: bool


class Point(TypedDict):
    """A codec of an experiment on ``final``.

    ``bits`` are per table parameter; ``kl`` and ``same_top`` are at prompt positions, None if nothing was measured;
    ``fvu`` is by occurrence on ``gate``. ``reaches`` the threshold with the whole interval of F1, or with none of it;
    None if the interval straddles it, or there is none. ``keeps`` is in the order of the frontier's ``kept``. Seconds
    are of one seed, None if they are not known. Without another domain's text there is no ``other_domain``.
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
    reaches: bool | None
    keeps: list[Keeps]
    pareto: bool
    seconds_to_make: float | None
    seconds_to_decode: float | None
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


class KeptShare(TypedDict):
    """The cheapest codec that is shown to keep a share of the text's F1."""

    share: float
    cheapest: str | None


class Frontier(TypedDict):
    """The points by bits, with what they are measured on.

    ``noise`` is by FVU. ``other_domain`` is there if a codec was measured on another domain's text.
    ``detectable`` is the loss of F1 that 80% of such samples find in a test at 5%, the median over codecs. ``methods``
    are the verdict's.
    """

    experiment: str
    threshold: float
    kept: list[KeptShare]
    questions: int
    articles: int
    confidence: float
    ceiling: IntervalRecord
    detectable: float | None
    points: list[Point]
    methods: list[MethodAtRate]
    noise: list[NoisePoint]
    other_domain: NotRequired[OtherText]


def frontier(root: Path, own: Sequence[type[Codec]] = ()) -> Frontier:
    """The frontier of an experiment whose verdict is there.

    Args:
        root: the experiment's folder of results.
        own: families of codecs besides this package's.
    """
    paths = Layout(str(root))
    verdict: Verdict = read_json(paths.verdict, VERDICT_KEYS)
    codecs = {
        codec_name(arm, entry["k"]): (entry, arm)
        for entry in verdict["entries"]
        for arm in ordered_arms(entry["arms"])
        if entry["arms"][arm]["rate"] is not None
    }
    variants = {name: Variant.of(arm, entry["k"], entry["seeds"][0]) for name, (entry, arm) in codecs.items()}
    to_decode, jobs = seconds_to_decode(paths, variants.values(), own), finished_jobs(root)
    points = []
    for name, (entry, arm) in codecs.items():
        point = _point(name, arm, entry, verdict["kept"])
        point["seconds_to_make"] = seconds_to_make(paths, variants[name], jobs)
        point["seconds_to_decode"] = to_decode.get(str(variants[name]))
        points.append(point)
    points.sort(key=lambda point: (point["bits"], point["codec"]))
    for number, point in enumerate(points):
        point["pareto"] = _is_pareto(point, points[:number])
    text = verdict["entries"][0]["arms"]["text"]["f1"]
    result: Frontier = {
        "experiment": verdict["experiment"],
        "threshold": verdict["entries"][0]["threshold"],
        "kept": [{"share": own["share"], "cheapest": own["cheapest"]} for own in verdict["kept"]],
        "questions": text["questions"],
        "articles": text["articles"],
        "confidence": text["confidence"],
        "ceiling": text,
        "detectable": verdict["kept"][0]["detectable"],
        "points": points,
        "methods": verdict["methods"],
        "noise": _noise(verdict["entries"]),
    }
    elsewhere = [entry["arms"][arm]["divergence"] or {} for entry, arm in codecs.values()]
    for other in (own[OTHER_DOMAIN] for own in elsewhere if "kl_over_prompt" in own.get(OTHER_DOMAIN, ())):
        result["other_domain"] = {
            "passages": other["kl"]["questions"],
            "documents": other["kl"]["articles"],
            "positions": other["positions"],
        }
    return result


def _point(name: str, arm: str, entry: DimensionVerdict, kept: Sequence[Kept]) -> Point:
    """A codec of a code dimension, without its times and its place in the Pareto set."""
    found, error = entry["arms"][arm], entry["reconstruction"].get(arm, {}).get("all")
    rate, measured = found["rate"], found["divergence"] or {}
    assert rate is not None
    prompt = measured.get("prompt")
    point: Point = {
        "codec": name,
        "legend": arm_row(arm).legend,
        "bits": rate["bits_per_parameter"],
        "megabytes": rate["megabytes"],
        "f1": found["f1"],
        "retention": found["retention"],
        "kl": prompt["kl"] if prompt else None,
        "same_top": prompt["same_top"] if prompt else None,
        "fvu": error["fvu"] if error else None,
        "reaches": _reaches(found["f1"], entry["threshold"]),
        "keeps": [{"p": own["p"][name], "shown": name in own["shown"]} for own in kept],
        "pareto": False,
        "seconds_to_make": None,
        "seconds_to_decode": None,
    }
    if (other := measured.get(OTHER_DOMAIN)) is not None and "kl_over_prompt" in other:
        point["other_domain"] = {"kl": other["kl"], "same_top": other["same_top"], "ratio": other["kl_over_prompt"]}
    return point


def _reaches(f1: IntervalRecord, threshold: float) -> bool | None:
    if f1["lower"] is None or f1["upper"] is None:
        return None
    return True if f1["lower"] >= threshold else False if f1["upper"] < threshold else None


def _noise(entries: Sequence[DimensionVerdict]) -> list[NoisePoint]:
    """Random errors of codecs' sizes, by FVU."""
    noise: dict[str, NoisePoint] = {}
    for entry in entries:
        for arm in ordered_arms(entry["arms"]):
            found, row = entry["arms"][arm], arm_row(arm)
            prompt = (found["divergence"] or {}).get("prompt")
            error = entry["reconstruction"].get(arm, {}).get("all")
            if row.noise and row.error_of and prompt and error:
                noise[codec_name(arm, entry["k"])] = {
                    "codec": codec_name(row.error_of, entry["k"]),
                    "noise": row.noise,
                    "fvu": error["fvu"],
                    "kl": prompt["kl"],
                    "f1": found["f1"],
                }
    return sorted(noise.values(), key=lambda own: (own["fvu"], own["codec"], own["noise"]))


def _is_pareto(point: Point, cheaper: Sequence[Point]) -> bool:
    kl = _kl(point)
    return kl is not None and all(other is None or kl < other for other in map(_kl, cheaper))


def _kl(point: Point) -> float | None:
    return None if point["kl"] is None else point["kl"]["estimate"]
