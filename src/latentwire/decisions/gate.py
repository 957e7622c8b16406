"""The gate: does Phase 1 alone keep enough F1, or does Phase 2 run?"""

from __future__ import annotations

import pandas as pd

from latentwire.decisions.divergences import per_position
from latentwire.decisions.thresholds import reaches
from latentwire.errors import InputError
from latentwire.evaluation.statistics import difference_interval, mean_interval, seed_summary
from latentwire.results import Ceiling, Decision, Evidence, Reading


def question_means(per_seed: list[pd.DataFrame], column: str = "f1") -> tuple[pd.DataFrame, float | None]:
    """One arm's scores averaged over seeds, question by question.

    Args:
        per_seed: one table per seed, each with ``id``, ``article`` and ``column``.
        column: what to average.

    Returns:
        ``id``, ``article``, ``column`` in the first table's order, and the standard deviation of the seeds' means
        (None for one seed).
    """
    first = per_seed[0][["id", "article"]].reset_index(drop=True)
    aligned = [
        first.merge(table[["id", column]], on="id", validate="one_to_one")[column].to_numpy() for table in per_seed
    ]
    if any(len(values) != len(first) for values in aligned):
        raise InputError("the seeds were evaluated on different questions; evaluate them again")
    means, deviation = seed_summary(aligned)
    return first.assign(**{column: means}), deviation


def decide_gate(
    ceiling: Ceiling,
    text: pd.DataFrame,
    phase1: list[pd.DataFrame],
    divergence: pd.DataFrame,
    *,
    threshold: float,
    failing: float,
    force_phase2: bool,
    resamples: int,
    seed: int,
) -> tuple[Decision, Evidence]:
    """The plan's point rule on ``gate``.

    Args:
        ceiling: the ceiling check's findings.
        text: scores of the ``text`` arm.
        phase1: scores of the ``phase1`` arm, one table per seed.
        divergence: sums per question of how far that arm moves predictions at prompt positions, rows of every seed.
        threshold: F1 at or above which Phase 2 is skipped, a fraction.
        failing: F1 below which Phase 1 counts as failing.
        force_phase2: run Phase 2 whatever the F1.
        resamples, seed: of the intervals.

    Returns:
        The decision (``run_phase2`` and nothing else), and the evidence: F1 with its interval and seed deviation, the
        difference to the ceiling, KL and same top token, the thresholds, the ``reading`` (``validated``, ``partial``,
        ``failing``), whether the interval straddles a threshold, and whether the decision was forced.
    """
    options = {"resamples": resamples, "seed": seed}
    scores, deviation = question_means(phase1)
    paired = scores.merge(text[["id", "f1"]], on="id", suffixes=("", "_text"), validate="one_to_one")
    interval = mean_interval(scores["f1"].to_numpy(), scores["article"].to_numpy(), **options)
    difference = difference_interval(
        paired["f1"].to_numpy(), paired["f1_text"].to_numpy(), paired["article"].to_numpy(), **options
    )
    value = interval.estimate
    assert value is not None
    passed = reaches(value, threshold)
    reading: Reading = "validated" if passed else "partial" if reaches(value, failing) else "failing"
    straddles = [
        limit
        for limit in (threshold, failing)
        if interval.lower is not None and interval.upper is not None and interval.lower < limit <= interval.upper
    ]
    moved = divergence.groupby(["id", "article"], sort=False)[["positions", "kl", "same_top"]].mean().reset_index()
    measured = bool(moved["positions"].sum())
    evidence: Evidence = {
        "f1": interval.to_json(),
        "kl": per_position(moved, "kl", **options) if measured else None,
        "same_top": per_position(moved, "same_top", **options) if measured else None,
        "f1_seed_deviation": deviation,
        "seeds": len(phase1),
        "difference_to_text": difference.to_json(),
        "threshold": threshold,
        "failing": failing,
        "passed": passed,
        "reading": reading,
        "straddles": straddles,
        "forced": force_phase2 and passed,
        "ceiling": ceiling["arms"]["text"]["f1"],
        "ceiling_passed": ceiling["passed"],
    }
    return {"run_phase2": force_phase2 or not passed}, evidence
