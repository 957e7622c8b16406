"""How far one arm moves the model's predictions, over another: the paired ratio of their KL, clustered by article.

Both come from an evaluation's measures (``evaluation/*/divergence.parquet``), so that they are of the same positions
of the same questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from latentwire.arms_table import Variant
from latentwire.artefacts import read_measures
from latentwire.errors import InputError
from latentwire.evaluation.statistics import Interval, ratio_interval


@dataclass(frozen=True)
class KlComparison:
    """The KL of two arms from the uncompressed model, in nats per position.

    Attributes:
        a, b: their means over all positions.
        ratio: A / B with its interval over articles.
        positions: how many.
    """

    a: float
    b: float
    ratio: Interval
    positions: int


def compare_kl(
    path: Path, a: Variant, b: Variant, subset: str, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> KlComparison:
    """Compare two arms of an evaluation.

    Args:
        path: its measures.
        a: the arm above the line.
        b: the arm below it.
        subset: of the positions, such as ``prompt`` or ``answer``.
        confidence: of the interval.
        resamples: of the articles.
        seed: of the resampling.

    Raises:
        InputError: the file is missing, damaged or something else, or lacks an arm or the subset; says what it has.
    """
    table = read_measures(path)
    if missing := {"arm", "k", "seed", "id", "article", "subset", "positions", "kl"} - {*table.columns}:
        raise InputError(f"{path} is no file of measures: it lacks {', '.join(sorted(missing))}")
    own = table[table["subset"] == subset]
    if own.empty:
        raise InputError(f"{path} has no positions {subset!r}: there are {', '.join(sorted({*table['subset']}))}")
    first, second = _of(own, a, path), _of(own, b, path)
    both = first.merge(second, on=["id", "article", "positions"], suffixes=("_a", "_b"))
    if not len(first) == len(second) == len(both):
        raise InputError(f"{path}: {a} and {b} were not measured at the same positions")
    positions = int(both["positions"].sum())
    ratio = ratio_interval(
        both["kl_a"].to_numpy(),
        both["kl_b"].to_numpy(),
        both["article"].to_numpy().astype(str),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    return KlComparison(both["kl_a"].sum() / positions, both["kl_b"].sum() / positions, ratio, positions)


def _of(table: pd.DataFrame, variant: Variant, path: Path) -> pd.DataFrame:
    keys = table[["arm", "k", "seed"]].itertuples(index=False)
    names = pd.Series([":".join(str(part) for part in key if not pd.isna(part)) for key in keys], table.index)
    rows = table[names == str(variant)]
    if rows.empty:
        raise InputError(f"{path} has no measures of {variant}: there are {', '.join(sorted({*names}))}")
    return rows[["id", "article", "positions", "kl"]].sort_values("id")


def described_kl(a: Variant, b: Variant, found: KlComparison) -> str:
    """The comparison in lines of text."""
    ratio = found.ratio
    said = f"no interval: {ratio.refused}"
    if ratio.estimate is not None and ratio.lower is not None and ratio.upper is not None:
        method = f"{100 * ratio.confidence:g}% studentised bootstrap over articles"
        said = f"{ratio.estimate:.3g} [{ratio.lower:.3g}, {ratio.upper:.3g}], {method}"
    counts = f"{found.positions} positions, {ratio.questions} questions in {ratio.articles} articles"
    return f"A {a}: {found.a:.3g} nats, B {b}: {found.b:.3g} nats, {counts}\nA / B     {said}"
