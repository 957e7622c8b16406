"""Does reconstruction predict generation? Rank correlations over arms, and what makes an arm's error harmful."""

from __future__ import annotations

import numpy as np
import pandas as pd

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.decisions.evidence import DimensionResults
from latentwire.evaluation.statistics import Sums, rank_correlation, ratio_interval
from latentwire.results import HarmOfError, Predictive

MIN_ARMS = 5
# Errors of reconstruction on gate: name, subset of tokens, and the sums whose ratio it is. Similarities count as their
# distance from 1.
MEASURES = (
    ("FVU", "all", "squared_error", "squared_deviation"),
    ("FVU of tokens in answers", "answer", "squared_error", "squared_deviation"),
    ("FVU of tokens seen 10–99 times", "10-99", "squared_error", "squared_deviation"),
    ("FVU of tokens seen 100–999 times", "100-999", "squared_error", "squared_deviation"),
    ("error of what the first layer reads", "all", "reading_error", "reading_size"),
    ("relative error", "all", "relative_error", "tokens"),
    ("1 − cosine", "all", "cosine", "tokens"),
    ("1 − nearest-token accuracy", "all", "nearest_token", "tokens"),
)
SIMILARITIES = ("cosine", "nearest_token")


def _error(sums: pd.DataFrame, column: str, over: str) -> Sums:
    part = sums[over] - sums[column] if column in SIMILARITIES else sums[column]
    return part.to_numpy(), sums[over].to_numpy(), sums["article"].to_numpy()


def _divergence(sums: pd.DataFrame) -> Sums:
    return sums["kl"].to_numpy(), sums["positions"].to_numpy(), sums["article"].to_numpy()


def predictive(results: DimensionResults, bootstrap: dict[str, int]) -> Predictive | None:
    """Spearman's rank correlation over arms between errors of reconstruction and harm to the model's predictions.

    Over the codecs of which both are measured: reconstruction on ``gate``, KL at prompt positions and F1 on ``final``.

    Args:
        results: at one code dimension.
        bootstrap: arguments of every interval.

    Returns:
        The arms and per measure the correlations with their intervals; None for fewer than :data:`MIN_ARMS` arms.
    """
    arms = [
        arm
        for arm in ordered_arms(results.arms)
        if arm_row(arm).kind == "codec"
        and (arm, "all") in results.reconstruction
        and (arm, "prompt") in results.divergence
    ]
    if len(arms) < MIN_ARMS:
        return None
    kl = [_divergence(results.divergence[arm, "prompt"]) for arm in arms]
    scores = [results.arms[arm].f1 for arm in arms]
    lost = [((1 - f1["f1"]).to_numpy(), np.ones(len(f1)), f1["article"].to_numpy()) for f1 in scores]
    found: Predictive = {"arms": arms, "measures": []}
    for name, subset, column, over in MEASURES:
        tables = [results.reconstruction[arm, subset] for arm in arms if (arm, subset) in results.reconstruction]
        if len(tables) < len(arms) or not all(over in table and table[over].sum() for table in tables):
            continue
        errors = [_error(table, column, over) for table in tables]
        found["measures"].append(
            {
                "measure": name,
                "kl": rank_correlation(errors, kl, **bootstrap).to_json(),
                "f1": rank_correlation(errors, lost, **bootstrap).to_json(),
            }
        )
    return found


def harm_of_error(results: DimensionResults, bootstrap: dict[str, int]) -> list[HarmOfError]:
    """For each codec with noise controls: its KL over equal noise of its FVU, in two factors.

    ``allocation``: noise as large as the codec's error row by row, over noise spread equally: which tokens carry the
    error. ``direction``: the codec over the former: where the error points. Their product is ``total``. ``shrinkage``
    is the part of the direction that shrinking the rows as the codec does explains. Noise is the mean over its draws;
    ``draw_deviation`` is the largest relative standard deviation over the draws of a control's KL, None for one draw.
    """
    found: list[HarmOfError] = []
    for codec in ordered_arms(results.arms):
        noise = {spread: f"noise_{spread}_{codec}" for spread in ("rows", "shrunk", "equal")}
        names = {"codec": codec} | noise
        if not all((name, "prompt") in results.divergence for name in names.values()):
            continue
        sums = {key: results.divergence[name, "prompt"].set_index("id") for key, name in names.items()}
        articles = sums["codec"]["article"].to_numpy()
        kl = {key: own.loc[sums["codec"].index, "kl"].to_numpy() for key, own in sums.items()}
        total, allocation, direction, shrinkage = (
            ratio_interval(kl[a], kl[b], articles, **bootstrap).to_json()
            for a, b in (("codec", "equal"), ("rows", "equal"), ("codec", "rows"), ("shrunk", "rows"))
        )
        draws = [results.kl_by_seed[name] for name in noise.values()]
        deviations = [float(np.std(own, ddof=1) / np.mean(own)) for own in draws if len(own) > 1]
        found.append(
            {
                "codec": codec,
                "total": total,
                "allocation": allocation,
                "direction": direction,
                "shrinkage": shrinkage,
                "draws": len(draws[0]),
                "draw_deviation": max(deviations, default=None),
            }
        )
    return found
