"""Two files of predictions on the same questions: the paired difference of their scores, clustered by article.

A file is one of

- this project's scores (``evaluation/*/scores.parquet``);
- JSON lines with ``id`` and a score (``f1`` or the metric asked for), or with ``prediction``; ``article`` (or
  ``cluster``) and ``answers`` may be in each line;
- samples that lm-evaluation-harness logs: ``doc`` with its ``id``, and ``title`` if it has one, and a metric;
- the official scorer's ``{id: answer}``.

What a file lacks of references and articles comes from an official SQuAD v1.1 file.

Shape suffixes: N questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from latentwire.arms_table import Variant
from latentwire.artefacts import read_parquet
from latentwire.data.squad import read_squad_json
from latentwire.errors import InputError
from latentwire.evaluation.noninferiority import Paired, noninferiority_p
from latentwire.evaluation.squad_metrics import exact_match, f1
from latentwire.evaluation.statistics import Interval, difference_interval, ratio_interval

SCORERS = {"f1": f1, "exact_match": exact_match}
CLUSTERS = ("article", "cluster", "title")
# Sum of the normal quantiles of a two-sided test at 5% and of a power of 80%.
DETECTABLE = 2.80


@dataclass(frozen=True)
class Reference:
    """The accepted answers of a question and its article."""

    answers: Sequence[str]
    article: str


def references_of(path: Path | None) -> dict[str, Reference]:
    """The references of an official SQuAD v1.1 file, by the question's id; none without a file.

    Raises:
        InputError: the file is missing or malformed.
    """
    rows: list[Any] = [] if path is None else read_squad_json(path)
    return {row["id"]: Reference(row["answers"]["text"], row["title"]) for row in rows}


def read_scores(path: Path, variant: Variant | None, metric: str, references: Mapping[str, Reference]) -> pd.DataFrame:
    """One row per question: ``id``, ``score`` (a fraction) and ``article`` (None if it is not known).

    Args:
        path: a file of predictions.
        variant: which arm of a file with several; None if there is one.
        metric: the score's name.
        references: of the questions, if the file has none.

    Raises:
        InputError: the file is missing or malformed, a question is there twice or has no score; says which.
    """
    records = list(_records(path))
    arms = {(own.get("arm"), own.get("k"), own.get("seed")) for own in records}
    if variant is not None:
        records = [own for own in records if _is(own, variant)]
    elif len(arms) > 1:
        shown = ", ".join(sorted(":".join(str(part) for part in own if part is not None) for own in arms))
        raise InputError(f"{path} holds several arms: write {path}@ARM, where ARM is one of {shown}")
    if not records:
        raise InputError(f"{path} holds no predictions" + (f" of {variant}" if variant else ""))
    rows = [_row(own, metric, references, f"{path}, prediction {number}") for number, own in enumerate(records, 1)]
    table = pd.DataFrame(rows, columns=["id", "score", "article"])
    if table["id"].duplicated().any():
        raise InputError(f"{path}: question {table['id'][table['id'].duplicated()].iloc[0]!r} is there twice")
    return table


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The predictions of a file as dictionaries."""
    if path.suffix == ".parquet":
        yield from _scored(path)
        return
    try:
        text = path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError) as first:
        try:
            lines = [json.loads(text)]
        except (ValueError, UnboundLocalError):
            raise InputError(f"{path}: neither JSON lines nor JSON: {first}") from None
    single = lines[0] if len(lines) == 1 and isinstance(lines[0], dict) else {}
    if single and "prediction" not in single and all(isinstance(own, str) for own in single.values()):
        yield from ({"id": name, "prediction": answer} for name, answer in single.items())
        return
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict):
            raise InputError(f"{path}, line {number}: expected an object, got {str(line)[:60]!r}")
        yield line


def _scored(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of this project's scores."""
    table = read_parquet(path, ["id", "article", "arm", "k", "seed", "prediction", "answers"])
    table["answers"] = table["answers"].map(list)
    for row in table.astype({"k": object, "seed": object}).to_dict("records"):
        yield {str(name): None if value is pd.NA else value for name, value in row.items()}


def _is(record: Mapping[str, Any], variant: Variant) -> bool:
    return (record.get("arm"), record.get("k"), record.get("seed")) == (variant.arm, variant.k, variant.seed)


def _row(
    record: Mapping[str, Any], metric: str, references: Mapping[str, Reference], place: str
) -> tuple[str, float, str | None]:
    doc = record.get("doc")
    known = dict(record) if not isinstance(doc, dict) else doc | dict(record)
    name = str(known.get("id", known.get("doc_id", "")))
    if not name:
        raise InputError(f"{place} has neither 'id' nor 'doc_id'")
    reference = references.get(name)
    article = next((str(known[key]) for key in CLUSTERS if known.get(key) is not None), None)
    if article is None and reference is not None:
        article = reference.article
    score = record.get(metric)
    if score is None:
        answers = known.get("answers") or (reference.answers if reference else None)
        answers = answers.get("text") if isinstance(answers, dict) else answers
        if not isinstance(record.get("prediction"), str) or not answers or metric not in SCORERS:
            raise InputError(
                f"{place} ({name!r}) has neither the metric {metric!r} nor a prediction with reference answers: name "
                "the metric (--metric), or the SQuAD file with the references (--questions)"
            )
        score = SCORERS[metric](record["prediction"], answers)
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{place} ({name!r}): the metric {metric!r} is {score!r}, not a fraction from 0 to 1")
    return name, float(score), article


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of A with B over the same questions, as fractions.

    Attributes:
        a, b: their mean scores.
        difference: A − B with its interval.
        retention: A / B with its interval.
        margin: how much A may lose and still be called no worse.
        level: of the one-sided test of that.
        p: the p-value of that test; None if it is refused.
        detectable: the smallest loss that a test at 5% finds with a power of 80%, from the standard error; None if
            there is none.
    """

    a: float
    b: float
    difference: Interval
    retention: Interval
    margin: float
    level: float
    p: float | None
    detectable: float | None

    @property
    def verdict(self) -> str:
        """What the interval of the difference and the test of non-inferiority say of A."""
        lower, upper = self.difference.lower, self.difference.upper
        if self.p is None:
            return "refused"
        if lower is not None and lower > 0:
            return "better"
        if upper is not None and upper < -self.margin:
            return "worse"
        return "non-inferior" if self.p <= self.level else "not shown"


def compare(
    a: pd.DataFrame, b: pd.DataFrame, *, margin: float, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare the scores of A and B (:func:`read_scores`), article by article.

    Args:
        a, b: scores of the same questions, in any order.
        margin: of non-inferiority, a fraction.
        confidence: of the two-sided intervals; non-inferiority is then tested at half of the rest.
        resamples: of the articles.
        seed: of the resampling.

    Raises:
        InputError: they are not of the same questions, or the article of one is not known, or differs.
    """
    apart = sorted(set(a["id"]) ^ set(b["id"]))
    if apart:
        raise InputError(f"{len(apart)} questions are in one of the files alone, such as {', '.join(apart[:3])}")
    both = a.merge(b, on="id", suffixes=("_a", "_b")).sort_values("id")
    article = both["article_a"].fillna(both["article_b"])
    if (unknown := both["id"][article.isna()]).size:
        raise InputError(
            f"the article of {len(unknown)} questions is not known, such as {unknown.iloc[0]}: put 'article' into "
            "each line, or name the SQuAD file (--questions)"
        )
    if (differ := both["id"][both["article_b"].fillna(article) != article]).size:
        raise InputError(f"the files name different articles for {len(differ)} questions, such as {differ.iloc[0]}")
    drawn: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    a_N, b_N, article_N = both["score_a"].to_numpy(), both["score_b"].to_numpy(), article.to_numpy().astype(str)
    difference = difference_interval(a_N, b_N, article_N, **drawn)
    error = difference.standard_error
    return Comparison(
        a=float(a_N.mean()),
        b=float(b_N.mean()),
        difference=difference,
        retention=ratio_interval(a_N, b_N, article_N, **drawn),
        margin=margin,
        level=(1 - confidence) / 2,
        p=noninferiority_p(Paired(a_N, b_N, article_N), margin, resamples=resamples, seed=seed),
        detectable=None if error is None else DETECTABLE * error,
    )


def described(comparison: Comparison) -> str:
    """The comparison in lines of text."""
    difference, points = comparison.difference, 100
    head = (
        f"A {points * comparison.a:.1f}%, B {points * comparison.b:.1f}%, {difference.questions} questions in "
        f"{difference.articles} articles"
    )
    if comparison.p is None:
        return f"{head}\nno interval: {difference.refused}"
    margin = points * comparison.margin
    says = {
        "better": "A is better",
        "worse": f"A is worse by more than {margin:g} points",
        "non-inferior": f"A is no worse than B by {margin:g} points",
        "not shown": f"not shown that A is no worse than B by {margin:g} points",
    }[comparison.verdict]
    return "\n".join(
        [
            head,
            f"A − B     {_points(difference)}",
            f"A / B     {_percent(comparison.retention)}",
            f"verdict   {says} (p = {comparison.p:.3g}, one-sided, tested at {comparison.level:g})",
            f"power     {_power(comparison)}",
        ]
    )


def _points(difference: Interval) -> str:
    if difference.estimate is None or difference.lower is None or difference.upper is None:
        return f"no interval: {difference.refused}"
    limits = f"[{100 * difference.lower:+.2f}, {100 * difference.upper:+.2f}]"
    how = f"{100 * difference.confidence:g}% studentised bootstrap over articles"
    return f"{100 * difference.estimate:+.2f} points {limits}, {how}"


def _power(comparison: Comparison) -> str:
    if not comparison.detectable:
        return "not known: A and B answer alike"
    lost = 100 * comparison.detectable
    return f"a true loss of {lost:.2f} points is found in 80% of such samples, a smaller one in fewer"


def _percent(ratio: Interval) -> str:
    if ratio.estimate is None or ratio.lower is None or ratio.upper is None:
        return f"no interval: {ratio.refused}"
    return f"{100 * ratio.estimate:.1f}% [{100 * ratio.lower:.1f}, {100 * ratio.upper:.1f}]"
