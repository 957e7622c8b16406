"""The ceiling check: is the uncompressed prompt itself good enough for the gate to mean anything?"""

from __future__ import annotations

import pandas as pd

from latentwire.decisions.thresholds import reaches
from latentwire.evaluation.scores import summarise_arm
from latentwire.results import Ceiling, estimate_of


def check_ceiling(scores: pd.DataFrame, *, threshold: float, override: bool, resamples: int, seed: int) -> Ceiling:
    """What the original arms say on ``gate``.

    Args:
        scores: rows of the arms ``text``, ``identity``, ``mean``, ``question``.
        threshold: the gate's F1 threshold, a fraction.
        override: train in spite of a failed check (``gate.override_ceiling``).
        resamples, seed: of the intervals.

    Returns:
        ``passed`` (text F1 ≥ threshold), ``override``, ``threshold``, each arm's summary, and on how many questions
        ``identity`` gave the answer of ``text``.
    """
    arms = {
        str(arm): summarise_arm(own, resamples=resamples, seed=seed) for arm, own in scores.groupby("arm", sort=False)
    }
    found: Ceiling = {
        "passed": reaches(estimate_of(arms["text"]["f1"]), threshold),
        "override": override,
        "threshold": threshold,
        "arms": arms,
    }
    if "identity" in arms:
        pairs = scores[scores["arm"] == "identity"].merge(scores[scores["arm"] == "text"], on="id")
        same = int((pairs["prediction_x"] == pairs["prediction_y"]).sum())
        found["identity_equals_text"] = {"questions": len(pairs), "equal": same}
    return found
