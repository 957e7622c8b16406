"""The ceiling check: is the uncompressed prompt itself good enough for the gate to mean anything?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from latentwire.errors import InputError
from latentwire.evaluation.scores import summarise_arm
from latentwire.files import read_json


def check_ceiling(
    scores: pd.DataFrame, *, threshold: float, override: bool, resamples: int, seed: int
) -> dict[str, Any]:
    """What the original arms say on ``gate``.

    Args:
        scores: rows of the arms ``text``, ``identity``, ``mean``, ``question``.
        threshold: the gate's F1 threshold, a fraction.
        override: train in spite of a failed check (``ceiling.override``).
        resamples, seed: of the intervals.

    Returns:
        ``passed`` (text F1 ≥ threshold), ``override``, ``threshold``, each arm's summary, and on how many questions
        ``identity`` gave the answer of ``text``.
    """
    arms = {
        str(arm): summarise_arm(own, resamples=resamples, seed=seed) for arm, own in scores.groupby("arm", sort=False)
    }
    found: dict[str, Any] = {
        "passed": bool(arms["text"]["f1"]["estimate"] >= threshold),
        "override": override,
        "threshold": threshold,
        "arms": arms,
    }
    if "identity" in arms:
        pairs = scores[scores["arm"] == "identity"].merge(scores[scores["arm"] == "text"], on="id")
        same = int((pairs["prediction_x"] == pairs["prediction_y"]).sum())
        found["identity_equals_text"] = {"questions": len(pairs), "equal": same}
    return found


def require_ceiling(path: str | Path) -> dict[str, Any]:
    """The ceiling check's findings.

    Raises:
        InputError: it failed and is not overridden.
    """
    found: dict[str, Any] = read_json(path)
    if not found["passed"] and not found["override"]:
        value = found["arms"]["text"]["f1"]["estimate"]
        raise InputError(
            f"the ceiling is too low ({path}): the uncompressed text reaches F1 {value:.3f}, below the gate's "
            f"{found['threshold']:.2f}, so no compressed prompt can be expected to pass. Look at the prompt first "
            "(model.prompt_style, model.system_prompt, evaluate.max_new_tokens) and at the predictions beside the "
            "scores; to train all the same, set ceiling.override to true: the verdict will show it"
        )
    return found
