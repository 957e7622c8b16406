"""Intervals and tests for scores whose questions come in articles.

Questions of one article share paragraphs, so the article is the unit that is resampled. Every estimate here is a
ratio of sums over articles, Σ numerator / Σ denominator (a mean over questions has the denominator 1 a question).
Its standard error is the linearised one of survey sampling,

    se² = G / (G - 1) · Σ_g (numerator_g - estimate · denominator_g)² / (Σ denominator)²

(Cochran, Sampling Techniques, 3rd ed., section 6.4; Taylor linearisation with articles drawn with replacement),
and its interval is the studentised bootstrap, or bootstrap-t (Efron & Tibshirani, An Introduction to the
Bootstrap, section 12.5): articles are drawn with replacement, each resample r gives
t_r = (estimate_r - estimate) / se_r, and the limits are estimate - se · (upper, lower quantile of t).

Scores and limits are fractions, never percent. The limits aren't cut to [0, 1].

Shape suffixes: N questions, G articles, R resamples, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from latentwire.results import IntervalRecord

Floats = NDArray[np.float64]
# Numerator, denominator and article of each question.
Sums = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]

MIN_ARTICLES = 20
"""With fewer clusters no interval is given."""

_ROUNDING = 1e-12  # scores are of the order of 1: a smaller spread is the rounding of their sums


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, or with the reason why it has none.

    Attributes:
        estimate: the point estimate, a fraction; None if a ratio's denominator isn't positive.
        lower: the lower limit; None if the interval is refused.
        upper: the upper limit; None if the interval is refused.
        standard_error: the linearised standard error over articles, given for a refused interval too if it
            can be computed (it is 0.0 if the articles don't differ); None with a single article.
        confidence: the nominal coverage, such as 0.95.
        questions: how many questions were scored.
        articles: how many articles they come from.
        resamples: how many times the articles were resampled.
        seed: the seed of the resampling.
        refused: why there is no interval, or None if there is one.
    """

    estimate: float | None
    lower: float | None
    upper: float | None
    standard_error: float | None
    confidence: float
    questions: int
    articles: int
    resamples: int
    seed: int
    refused: str | None

    def to_json(self) -> IntervalRecord:
        """The fields as a dictionary of finite numbers, strings and None."""
        return cast("IntervalRecord", asdict(self))


def mean_interval(
    scores_N: ArrayLike,
    articles_N: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean score over questions, with an equal-tailed studentised bootstrap interval over articles.

    The interval is refused, with a reason, if there are fewer than ``MIN_ARTICLES`` articles; if the
    articles don't differ at all (a zero-width interval would claim certainty that the data can't give); and if
    the differences rest on so few articles that many resamples miss them all and a limit would be infinite.

    Args:
        scores_N: one score per question, a fraction.
        articles_N: each question's article, any label that NumPy can sort.
        confidence: the nominal coverage, between 0 and 1.
        resamples: the number of bootstrap resamples.
        seed: the seed of the resampling.

    Returns:
        The estimate and its interval; the order of the questions doesn't matter.

    Raises:
        ValueError: the arguments differ in length, are empty or not finite, or there are too few resamples for
            the confidence.
    """
    scores = _checked("scores", scores_N)
    return _interval(scores, np.ones_like(scores), articles_N, confidence, resamples, seed)


def difference_interval(
    a_N: ArrayLike,
    b_N: ArrayLike,
    articles_N: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of ``a`` minus mean of ``b`` over the same questions, with the articles resampled jointly.

    Args:
        a_N: one arm's score per question, a fraction.
        b_N: the other arm's score of the same questions in the same order.
        articles_N: as in ``mean_interval``, as are the other arguments, the refusals and the errors.
        confidence: the nominal coverage, between 0 and 1.
        resamples: the number of bootstrap resamples.
        seed: the seed of the resampling.

    Returns:
        The difference a - b and its interval. Arms that answer alike have the estimate 0 and no interval.
    """
    a, b = _paired(_checked("a", a_N), _checked("b", b_N))
    return _interval(a - b, np.ones_like(a), articles_N, confidence, resamples, seed)


def ratio_interval(
    numerator_N: ArrayLike,
    denominator_N: ArrayLike,
    articles_N: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Σ numerator over Σ denominator, with the articles resampled jointly; the retention of a ceiling.

    Retention takes an arm's score and the ceiling's score per question; retention above a floor takes arm - floor
    and ceiling - floor, which may be negative for single questions.

    Args:
        numerator_N: the part above the line, per question.
        denominator_N: the part below the line, of the same questions in the same order.
        articles_N: as in ``mean_interval``, as are the other arguments and the errors.
        confidence: the nominal coverage, between 0 and 1.
        resamples: the number of bootstrap resamples.
        seed: the seed of the resampling.

    Returns:
        The ratio and its interval. Besides the refusals of ``mean_interval``: if the denominators' sum isn't
        positive there is neither estimate nor interval, and if it isn't positive in every resample there is no
        interval, as zero can't be told from the denominator.
    """
    numerator, denominator = _paired(_checked("numerator", numerator_N), _checked("denominator", denominator_N))
    return _interval(numerator, denominator, articles_N, confidence, resamples, seed)


def independent_ratio_interval(
    a: Sums, b: Sums, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The ratio of two means from samples that share no article, each mean a ratio of sums.

    Studentised on the logarithm, whose squared standard error is the sum of the two means' squared relative ones; each
    sample's articles are drawn on their own.

    Args:
        a: numerator, denominator and article of each question above the line.
        b: those below it.
        confidence, resamples, seed: as in ``mean_interval``.

    Returns:
        The ratio a / b and its interval, with the number of questions and articles of ``a``. There is neither if
        one of the means isn't positive, and no interval if one of the two has none or isn't positive in a resample.
    """
    tail = _tail(confidence, resamples)
    sums = [_sums(_checked("numerator", top), _checked("denominator", under), own) for top, under, own in (a, b)]
    # Two seeds: samples with as many articles would otherwise be drawn alike.
    means = [_bootstrap(*own, resamples, seed + number) for number, own in enumerate(sums)]
    estimate = error = lower = upper = np.nan
    refused = next((own.refused for own in means if own.refused is not None), None)
    if all(own.estimate > 0 for own in means):
        estimate = means[0].estimate / means[1].estimate
        one, other = (own.standard_error / own.estimate for own in means)
        error = float(np.hypot(one, other))
    else:
        refused = "one of the two means isn't positive"
    if refused is None:
        drawn = [_linearised(*own, _resampled(own[0].size, resamples, seed + n)) for n, own in enumerate(sums)]
        if all((estimate_R > 0).all() for estimate_R, _ in drawn):
            log_R = np.log(drawn[0][0] / drawn[1][0]) - np.log(estimate)
            one_R, other_R = (error_R / estimate_R for estimate_R, error_R in drawn)
            t_R = np.sort(_studentised(log_R, np.hypot(one_R, other_R)))
            lower, upper = (estimate * np.exp(-t_R[place] * error) for place in (-tail, tail - 1))
        if not np.isfinite([lower, upper]).all():
            lower, upper, refused = np.nan, np.nan, "a mean isn't positive, or has no spread, in some resamples"
    return Interval(
        estimate=_finite(estimate),
        lower=_finite(lower),
        upper=_finite(upper),
        standard_error=_finite(estimate * error),
        confidence=float(confidence),
        questions=len(a[0]),
        articles=sums[0][0].size,
        resamples=resamples,
        seed=seed,
        refused=refused,
    )


def rank_correlation(
    first: Sequence[Sums],
    second: Sequence[Sums],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Spearman's rank correlation over arms between two ratios, with a percentile bootstrap interval over articles.

    The arms are held fixed: the interval covers which articles they were measured on, not which arms there are. The
    two ratios may be of different questions: articles are resampled for each, those of the second with the next seed.

    Args:
        first: per arm the numerator, the denominator and the article of each question.
        second: the same of the second ratio, of the same arms in the same order.
        confidence: the nominal coverage, between 0 and 1.
        resamples: the number of bootstrap resamples.
        seed: the seed of the resampling.

    Returns:
        The correlation between -1 and 1 with its interval, the second ratio's questions and articles; refused below
        ``MIN_ARTICLES`` articles. Neither estimate nor interval if the arms do not differ.

    Raises:
        ValueError: as in ``mean_interval``, or the arms are fewer than three or not the same number on both sides.
    """
    from scipy.stats import rankdata

    if len(first) != len(second) or len(first) < 3:
        raise ValueError(f"expected the same arms on both sides, at least three, got {len(first)} and {len(second)}")
    tail = _tail(confidence, resamples)
    ranks, draws = [], []
    for offset, ratios in enumerate((first, second)):
        sums = [_sums(_checked("numerator", n), _checked("denominator", d), articles) for n, d, articles in ratios]
        numerator_AG, denominator_AG = (np.stack(part) for part in zip(*sums, strict=True))
        articles = numerator_AG.shape[1]
        # The estimate comes first.
        weights_RG = np.vstack(
            [np.ones((1, articles), dtype=np.int64), _resampled(articles, resamples, seed + offset)]
        )
        total_RA = np.stack([(weights_RG * own_G).sum(axis=1) for own_G in denominator_AG], axis=1)
        value_RA = np.stack([(weights_RG * own_G).sum(axis=1) for own_G in numerator_AG], axis=1) / total_RA
        rank_RA = rankdata(value_RA, axis=1)
        ranks.append(rank_RA - rank_RA.mean(axis=1, keepdims=True))
        draws.append(articles)
    scale_R = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        rho_R = (ranks[0] * ranks[1]).sum(axis=1) / scale_R
    rho, resampled = rho_R[0], np.sort(rho_R[1:])
    refused = None
    if min(draws) < MIN_ARTICLES:
        refused = _too_few(min(draws))
    elif not np.isfinite(rho_R).all():
        refused = "the arms don't differ in every resample"
    lower, upper = (np.nan, np.nan) if refused else (resampled[tail - 1], resampled[-tail])
    return Interval(
        estimate=_finite(rho),
        lower=_finite(lower),
        upper=_finite(upper),
        standard_error=_finite(float(resampled.std(ddof=1))) if refused is None else None,
        confidence=float(confidence),
        questions=len(second[0][0]),
        articles=draws[1],
        resamples=resamples,
        seed=seed,
        refused=refused,
    )


def p_value(
    scores_N: ArrayLike,
    articles_N: ArrayLike,
    threshold: float,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> float | None:
    """Two-sided p-value of the hypothesis that the mean score is ``threshold``.

    It inverts the equal-tailed interval: with the same resamples and seed, p ≤ 1 - confidence exactly if the
    threshold is outside ``mean_interval``. It is twice the smaller tail, (1 + the resamples whose t is at least
    as extreme as the observed t) / (1 + resamples), at most 1; so no p is below 2 / (1 + resamples). For a
    paired difference pass a - b and the threshold 0; for a retention of c, arm - c · ceiling and the threshold 0.

    Args:
        scores_N: one score per question, a fraction.
        articles_N: each question's article.
        threshold: the mean under the hypothesis, a fraction.
        resamples: the number of bootstrap resamples.
        seed: the seed of the resampling.

    Returns:
        The p-value, or None if there are fewer than ``MIN_ARTICLES`` articles or the articles don't differ.

    Raises:
        ValueError: as in ``mean_interval``, or the threshold isn't finite.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"expected a finite threshold, got {threshold}")
    scores = _checked("scores", scores_N)
    bootstrap = _bootstrap(*_sums(scores, np.ones_like(scores), articles_N), resamples, seed)
    if bootstrap.refused is not None:
        return None
    observed = (bootstrap.estimate - threshold) / bootstrap.standard_error
    at_least = 1 + np.count_nonzero(bootstrap.t_R >= observed)
    at_most = 1 + np.count_nonzero(bootstrap.t_R <= observed)
    return min(1.0, 2 * int(min(at_least, at_most)) / (1 + resamples))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment, which bounds the chance of any false rejection among the tests.

    The i-th smallest of m p-values is multiplied by m - i + 1, then never let fall below a smaller one's result
    (Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure).

    Args:
        p_values: the p-value of each test by its name.

    Returns:
        The adjusted p-values, at most 1, in the order of the argument.

    Raises:
        ValueError: a value isn't between 0 and 1.
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"expected a p-value between 0 and 1 for {name!r}, got {p}")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def seed_summary(scores_SN: ArrayLike) -> tuple[Floats, float | None]:
    """Scores averaged over seeds question by question, and the spread of the seeds' means.

    An interval made of the averaged scores covers the choice of articles with these seeds held fixed; the
    standard deviation beside it reflects the variation between seeds.

    Args:
        scores_SN: one row of scores a seed, the same questions in the same order.

    Returns:
        The mean over seeds of each question, shape [N], and the standard deviation (S - 1 in the denominator) of
        the S mean scores, None for a single seed.

    Raises:
        ValueError: the rows differ in length, there is no score, or a score isn't finite.
    """
    scores = np.asarray(scores_SN, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"expected scores of shape [seeds, questions], neither of them 0, got {scores.shape}")
    if not np.isfinite(scores).all():
        seed, question = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(f"the score of seed {seed}, question {question} is {scores[seed, question]}, not finite")
    spread = float(scores.mean(axis=1).std(ddof=1)) if len(scores) > 1 else None
    return scores.mean(axis=0), spread


@dataclass(frozen=True)
class _Bootstrap:
    """The estimate, its standard error and the sorted bootstrap distribution of t; NaN or empty if refused."""

    estimate: float
    standard_error: float
    t_R: Floats
    refused: str | None


def _interval(
    numerator_N: Floats,
    denominator_N: Floats,
    articles_N: ArrayLike,
    confidence: float,
    resamples: int,
    seed: int,
) -> Interval:
    tail = _tail(confidence, resamples)
    numerator_G, denominator_G = _sums(numerator_N, denominator_N, articles_N)
    bootstrap = _bootstrap(numerator_G, denominator_G, resamples, seed)
    lower = upper = np.nan
    refused = bootstrap.refused
    if refused is None:
        lower = bootstrap.estimate - bootstrap.t_R[-tail] * bootstrap.standard_error
        upper = bootstrap.estimate - bootstrap.t_R[tail - 1] * bootstrap.standard_error
        if not np.isfinite([lower, upper]).all():
            refused = "the scores differ in so few articles that resamples without any of them leave a limit infinite"
            lower = upper = np.nan
    return Interval(
        estimate=_finite(bootstrap.estimate),
        lower=_finite(lower),
        upper=_finite(upper),
        standard_error=_finite(bootstrap.standard_error),
        confidence=float(confidence),
        questions=numerator_N.size,
        articles=numerator_G.size,
        resamples=resamples,
        seed=seed,
        refused=refused,
    )


def _tail(confidence: float, resamples: int) -> int:
    """How many of the sorted t lie at or beyond each limit: the rank that makes ``p_value`` its exact inverse."""
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    tail = int((1 - confidence) / 2 * (resamples + 1) + 1e-9)  # 1 - 0.9 is a little less than 0.1
    if tail < 1:
        raise ValueError(f"{resamples} resamples are too few for a confidence of {confidence}")
    return tail


def _bootstrap(numerator_G: Floats, denominator_G: Floats, resamples: int, seed: int) -> _Bootstrap:
    if resamples < 1:
        raise ValueError(f"expected at least one resample, got {resamples}")
    nothing = np.empty(0)
    articles = numerator_G.size
    if denominator_G.sum() <= 0:
        return _Bootstrap(np.nan, np.nan, nothing, f"the denominator's sum is {denominator_G.sum():.6g}, not positive")
    (estimate,), (error,) = _linearised(numerator_G, denominator_G, np.ones((1, articles)))
    if articles < MIN_ARTICLES:
        return _Bootstrap(estimate, error, nothing, _too_few(articles))
    if error <= _ROUNDING:
        return _Bootstrap(estimate, 0.0, nothing, "the articles don't differ: there is no spread to judge chance by")
    weights_RG = _resampled(articles, resamples, seed)
    if ((weights_RG * denominator_G).sum(axis=1) <= 0).any():
        return _Bootstrap(estimate, error, nothing, "the denominator isn't positive in every resample")
    estimate_R, error_R = _linearised(numerator_G, denominator_G, weights_RG)
    return _Bootstrap(estimate, error, np.sort(_studentised(estimate_R - estimate, error_R)), None)


def _too_few(articles: int) -> str:
    return f"{articles} articles; an interval over fewer than {MIN_ARTICLES} doesn't keep its confidence"


@lru_cache(maxsize=8)
def _resampled(articles: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each article is in each resample, ``[R, G]``; one array for all intervals of a program."""
    drawn = np.random.default_rng(seed).multinomial(articles, np.full(articles, 1 / articles), size=resamples)
    drawn.setflags(write=False)
    return np.asarray(drawn)


def _linearised(numerator_G: Floats, denominator_G: Floats, weights_RG: NDArray[Any]) -> tuple[Floats, Floats]:
    """The estimate and the standard error of each row of article weights, both [R]; the error of one article is NaN.

    Sums instead of matrix products: their rounding doesn't depend on the number of threads.
    """
    total_R = (weights_RG * denominator_G).sum(axis=1)
    estimate_R = (weights_RG * numerator_G).sum(axis=1) / total_R
    residual_RG = numerator_G - estimate_R[:, None] * denominator_G
    articles = numerator_G.size
    inflation = articles / (articles - 1) if articles > 1 else np.nan
    return estimate_R, np.sqrt(inflation * (weights_RG * residual_RG**2).sum(axis=1)) / total_R


def _studentised(deviation_R: Floats, error_R: Floats) -> Floats:
    """Deviation over error; infinite, thus always among the extremes, if a resample's articles don't differ."""
    without_spread_R = np.where(np.abs(deviation_R) <= _ROUNDING, 0.0, np.copysign(np.inf, deviation_R))
    return np.divide(deviation_R, error_R, out=without_spread_R, where=error_R > _ROUNDING)


def _sums(numerator_N: Floats, denominator_N: Floats, articles_N: ArrayLike) -> tuple[Floats, Floats]:
    """The sums of both over each article, [G], articles in sorted order."""
    articles = np.asarray(articles_N)
    if articles.shape != numerator_N.shape:
        raise ValueError(f"expected one article per question, got shapes {articles.shape} and {numerator_N.shape}")
    _, article_N = np.unique(articles, return_inverse=True)
    numerator_G, denominator_G = (np.bincount(article_N, weights=part_N) for part_N in (numerator_N, denominator_N))
    return numerator_G.astype(np.float64), denominator_G.astype(np.float64)


def _checked(name: str, values_N: ArrayLike) -> Floats:
    values = np.asarray(values_N, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"expected {name} with one number per question, got shape {values.shape}")
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"{name} of question {index} is {values[index]}, not a finite number")
    return values


def _paired(a_N: Floats, b_N: Floats) -> tuple[Floats, Floats]:
    if a_N.shape != b_N.shape:
        raise ValueError(f"expected the same questions on both sides, got {a_N.size} and {b_N.size}")
    return a_N, b_N


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
