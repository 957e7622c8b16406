"""Which questions an arm answers."""

from __future__ import annotations

import pandas as pd


def arm_questions(arm: str, prompts: pd.DataFrame, identity_samples: int | None) -> pd.DataFrame:
    """All questions, but for ``identity`` the first ``identity_samples`` (None: all).

    Prepared prompts are in random order, so the first are a fixed random subset.
    """
    return prompts.head(identity_samples) if arm == "identity" and identity_samples is not None else prompts
