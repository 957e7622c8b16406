"""Scores of predictions: per question, and summarised with intervals and collapse counters."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from latentwire.arms_table import Variant
from latentwire.errors import InputError
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.squad_metrics import exact_match, f1
from latentwire.evaluation.statistics import mean_interval

if TYPE_CHECKING:
    from latentwire.results import ArmF1, SubsetF1

DEGENERATE_WORDS = 4
DEGENERATE_DISTINCT = 0.5
_WRAPPING = re.compile(r"^\s*(<\|?\w*think|<\|?\w*reason|```)|:\s*$", re.IGNORECASE)


def distinct_1(text: str) -> float:
    """Distinct words over words; 1.0 for an empty text (which is counted as empty instead)."""
    words = text.lower().split()
    return len(set(words)) / len(words) if words else 1.0


def is_wrapped(text: str) -> bool:
    """Whether an answer begins with a thinking tag or a code fence, or is a lead-in that ends with a colon."""
    return bool(_WRAPPING.search(text))


def is_degenerate(text: str) -> bool:
    """Whether an answer repeats itself: at least four words, at most half of them distinct."""
    return len(text.split()) >= DEGENERATE_WORDS and distinct_1(text) <= DEGENERATE_DISTINCT


def score_predictions(
    records: list[dict[str, Any]],
    prompts: pd.DataFrame,
    batch_size: int,
    identity_samples: int | None = None,
) -> pd.DataFrame:
    """One row per question, arm, code dimension and seed, with F1 and EM.

    Args:
        records: predictions of one or more arms.
        prompts: the split.
        batch_size, identity_samples: of the evaluation, which answers some batches alone with ``identity``.

    Raises:
        InputError: an arm has no prediction for a question, or two.
    """
    if not records:
        raise InputError("there are no predictions to score: the evaluation wrote none")
    questions = prompts[["id", "article", "answers", "unseen_answer_type"]]
    tables = []
    variants: dict[Variant, list[dict[str, Any]]] = {}
    for record in records:
        variants.setdefault(Variant(record["arm"], record["k"], record["seed"]), []).append(record)
    for variant, rows in variants.items():
        own = pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"})
        asked_at = sorted(itertools.chain(*arm_batches(variant.arm, prompts, batch_size, identity_samples)))
        asked = questions.iloc[asked_at]
        if sorted(own["id"]) != sorted(asked["id"]):
            raise InputError(
                f"arm '{variant}': {len(own)} predictions ({own['id'].nunique()} ids) for {len(asked)} questions; "
                "each needs exactly one: evaluate the arm again"
            )
        scored = asked.merge(own.drop(columns="article"), on="id", how="left", validate="one_to_one")
        scored["f1"] = [f1(p, list(refs)) for p, refs in zip(scored["prediction"], scored["answers"], strict=True)]
        scored["em"] = [
            exact_match(p, list(refs)) for p, refs in zip(scored["prediction"], scored["answers"], strict=True)
        ]
        tables.append(scored)
    return pd.concat(tables, ignore_index=True)


def summarise_arm(scored: pd.DataFrame, resamples: int, seed: int) -> ArmF1:
    """F1 and EM with intervals clustered by article, F1 on answers with an unseen type, and collapse counters."""
    options = {"resamples": resamples, "seed": seed}
    f1_interval, em_interval = (
        mean_interval(scored[name].to_numpy(), scored["article"].to_numpy(), **options).to_json()
        for name in ("f1", "em")
    )
    predictions = scored["prediction"]
    summary: ArmF1 = {
        "f1": f1_interval,
        "em": em_interval,
        "counts": {
            "questions": len(scored),
            "empty": int((predictions.str.strip() == "").sum()),
            "length_capped": int((scored["finished"] == "length").sum()),
            "degenerate": int(predictions.map(is_degenerate).sum()),
            "wrapped": int(predictions.map(is_wrapped).sum()),
        },
        "distinct_1": float(predictions.map(distinct_1).mean()),
    }
    for unseen, own in scored.groupby("unseen_answer_type"):
        found: SubsetF1 = {"estimate": float(own["f1"].mean()), "questions": len(own)}
        summary["f1_unseen_answer_type" if unseen else "f1_seen_answer_types"] = found
    return summary
