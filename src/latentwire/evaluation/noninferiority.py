"""Is A no worse than B by a margin? A one-sided, paired test over questions that come in articles.

The studentised bootstrap knows no more of losses than the sample holds: of two arms that answer every question alike
it would exclude any loss at all, though n questions miss losses at a rate q in (1 − q)ⁿ of samples. So it decides only
if A loses questions in at least :data:`MIN_LOSING_ARTICLES` articles. With fewer the number of questions that A loses
decides, gains count for nothing: a score lies between 0 and 1, so a mean loss of q means that at least a share q of
questions lose something. That number is taken to be negative binomial, a Poisson number whose rate differs from
article to article with a standard deviation as large as its mean (Cameron & Trivedi, Regression Analysis of Count
Data, section 3.3), so that questions of one article tell less than as many of different ones.

Shape suffixes: N questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentwire.evaluation.statistics import MIN_ARTICLES, p_value

MIN_LOSING_ARTICLES = 10


@dataclass(frozen=True)
class Paired:
    """Scores of two arms.

    Attributes:
        a_N: scores of A from 0 to 1.
        b_N: those of B for the same questions.
        article_N: the questions' articles, any label that NumPy can sort.
    """

    a_N: NDArray[np.float64]
    b_N: NDArray[np.float64]
    article_N: NDArray[np.generic]

    @property
    def effective_articles(self) -> float:
        """How many articles of equal size differ as much in their questions: (Σ size)² / Σ size²."""
        sizes = np.unique(self.article_N, return_counts=True)[1]
        return float(sizes.sum() ** 2 / (sizes**2).sum())


def noninferiority_p(own: Paired, margin_N: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> float | None:
    """The p-value of the hypothesis that A's mean lies below B's by the mean margin or more.

    Args:
        own: the scores.
        margin_N: per question, one number or N; their mean is between 0 and 1.
        resamples, seed: of the bootstrap.

    Returns:
        The p-value; None with fewer than :data:`~latentwire.evaluation.statistics.MIN_ARTICLES` articles.
    """
    if len(np.unique(own.article_N)) < MIN_ARTICLES:
        return None
    margin_N = np.broadcast_to(np.asarray(margin_N, dtype=np.float64), own.b_N.shape)
    loses_N = own.a_N < own.b_N
    if len(np.unique(own.article_N[loses_N])) < MIN_LOSING_ARTICLES:
        return _few_losses_p(int(loses_N.sum()), len(loses_N), own.effective_articles, float(margin_N.mean()))
    difference_N = own.a_N - own.b_N + margin_N
    p = p_value(difference_N, own.article_N, 0.0, resamples=resamples, seed=seed)
    if p is None:
        return None
    return p / 2 if difference_N.mean() > 0 else 1 - p / 2


def fewest_questions(margin: float, level: float, articles: float) -> float:
    """How many questions in so many articles, all answered alike, exclude a loss of ``margin`` at ``level``."""
    return articles * (level ** (-1 / articles) - 1) / margin


def _few_losses_p(lost: int, questions: int, articles: float, rate: float) -> float:
    """The chance of at most ``lost`` lost questions if they are lost at ``rate``, gamma distributed over articles."""
    from scipy.stats import nbinom

    return float(nbinom.cdf(lost, articles, 1 / (1 + rate * questions / articles)))
