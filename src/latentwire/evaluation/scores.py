"""Scores of predictions: per question, and summarised with intervals and collapse counters."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from latentwire.arms_table import ARMS, Variant, arm_row
from latentwire.artefacts import read_parquet
from latentwire.errors import InputError
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.squad_metrics import exact_match, f1, has_latin_words
from latentwire.evaluation.statistics import mean_interval
from latentwire.integrity import remake

if TYPE_CHECKING:
    from latentwire.results import ArmF1, SubsetF1
    from latentwire.settings import Scoring

FOREIGN_SHARE = 0.1
DEGENERATE_WORDS = 4
DEGENERATE_DISTINCT = 0.5
# A tag in any model's brackets, a fence, or words with a colon behind them, whatever marks them up. Not in round
# brackets or quotation marks, in which answers are written, too.
_WRAPPING = re.compile(
    r"^\W*?[<\[{◁⟨【〔][|/\s]*[\w:-]*(think|thought|reason|analysis|reflect|scratchpad|answer|思考)"
    r"|^\W*?(```|~~~)"
    r"|\w[^\w:]*:[^\w)]*$",
    re.IGNORECASE,
)


def distinct_1(text: str) -> float:
    """Distinct words over words; 1.0 for an empty text (which is counted as empty instead)."""
    words = text.lower().split()
    return len(set(words)) / len(words) if words else 1.0


def is_wrapped(text: str) -> bool:
    """Whether an answer begins with a thinking tag or a code fence, or is a lead-in that ends with a colon."""
    return bool(_WRAPPING.search(unicodedata.normalize("NFKC", text)))


def is_degenerate(text: str) -> bool:
    """Whether an answer repeats itself: at least four words, at most half of them distinct."""
    return len(text.split()) >= DEGENERATE_WORDS and distinct_1(text) <= DEGENERATE_DISTINCT


def score_predictions(
    records: list[dict[str, Any]],
    prompts: pd.DataFrame,
    batch_size: int,
    identity_samples: int | None = None,
    scoring: Scoring = "squad",
) -> pd.DataFrame:
    """One row per question, arm, code dimension and seed, with F1 and EM.

    Args:
        records: predictions of one or more arms.
        prompts: the split.
        batch_size, identity_samples: of the evaluation, which answers some batches alone with ``identity``.
        scoring: the definition of F1 and EM.

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
        pairs = [(p, list(refs)) for p, refs in zip(scored["prediction"], scored["answers"], strict=True)]
        scored["f1"] = [f1(prediction, references, scoring) for prediction, references in pairs]
        scored["em"] = [exact_match(prediction, references, scoring) for prediction, references in pairs]
        tables.append(scored)
    return pd.concat(tables, ignore_index=True)


def scoring_warnings(prompts: pd.DataFrame, scoring: Scoring) -> list[str]:
    """What makes F1 a matter of form: references that the official definition was not made for."""
    foreign = sum(not any(map(has_latin_words, references)) for references in prompts["answers"])
    if scoring != "squad" or foreign <= FOREIGN_SHARE * len(prompts):
        return []
    return [
        f"the references of {foreign} of {len(prompts)} questions hold no Latin words, and the official definition of "
        "F1 (evaluate.scoring: squad) leaves their punctuation and does not tell their words apart: set "
        "evaluate.scoring to words or characters"
    ]


def read_scores(path: str | Path, ids: Iterable[str]) -> pd.DataFrame:
    """The table that :func:`score_predictions` made of a split.

    Args:
        path: of the table.
        ids: of the split's questions.

    Raises:
        InputError: it can't be read, or its rows are not scores of exactly these questions; names the arm.
    """
    scored = read_parquet(path)
    if lacks := sorted({"id", "article", "arm", "k", "seed", "prediction", "f1", "em"} - {*scored.columns}):
        raise InputError(f"{path} holds no scores: there is no column {lacks[0]!r}")
    return checked_scores(scored, ids, str(path))


def checked_scores(scored: pd.DataFrame, ids: Iterable[str], where: str) -> pd.DataFrame:
    """Scores, if each arm has one finite score between 0 and 1 for every question of the split.

    An arm that answers a sample (:attr:`~latentwire.arms_table.ArmRow.sampled`) has one for some of them.

    Args:
        scored: one row per question and variant.
        ids: of the split's questions.
        where: the rows are from, for the message.

    Raises:
        InputError: they are not; names the arm and what is wrong.
    """
    again = f"score the split again: {remake(where)}"
    if scored["arm"].isna().any():
        raise InputError(f"{where}: {int(scored['arm'].isna().sum())} scores have no arm; {again}")
    asked = set(ids)
    for key, own in scored.groupby(["arm", "k", "seed"], dropna=False, sort=False):
        arm, k, seed = cast("tuple[str, Any, Any]", key)
        variant = Variant(str(arm), None if pd.isna(k) else int(k), None if pd.isna(seed) else int(seed))
        for name in ("f1", "em"):
            if len(wrong := own[~own[name].astype(float).between(0, 1)]):
                question, value = wrong["id"].iloc[0], wrong[name].iloc[0]
                raise InputError(
                    f"{where}: the {name} of arm '{variant}' on question {question!r} is {value}, not a number "
                    f"from 0 to 1; {again}"
                )
        answered = set(own["id"])
        whole = answered <= asked if arm in ARMS and arm_row(str(arm)).sampled else answered == asked
        if len(answered) != len(own) or not whole:
            raise InputError(
                f"{where}: arm '{variant}' has {len(own)} scores ({len(answered)} questions, {len(answered & asked)} "
                f"of them of the split) for the {len(asked)} questions of the split; {again}"
            )
    return scored


def require_arms(scored: pd.DataFrame, where: str | Path, arms: Mapping[str, int | None]) -> None:
    """Refuse scores that lack an arm at its code dimension; None for an arm that has none."""
    for arm, k in arms.items():
        own = scored[scored["arm"] == arm]
        if not len(own if k is None else own[own["k"] == k]):
            at = "" if k is None else f" at K = {k}"
            raise InputError(f"{where} has no scores of arm '{arm}'{at}; evaluate it again: {remake(where)}")


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
