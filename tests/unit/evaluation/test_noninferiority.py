"""Non-inferiority: exact where few questions are lost, the bootstrap where many are, and how often it is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire.evaluation.noninferiority import Paired, fewest_questions, noninferiority_p
from latentwire.evaluation.statistics import MIN_ARTICLES, p_value

LEVEL = 0.025
# Questions and articles: the pages' real model and demo, and half of SQuAD's development set.
SIZES = [(48, 24), (120, 30), (144, 24), (480, 30), (5263, 24)]


def alike(questions: int, articles: int = 30, b: float = 1.0) -> Paired:
    """Two arms with the same score on every question."""
    return Paired(np.full(questions, b), np.full(questions, b), np.arange(questions) % articles)


def with_losses(own: Paired, lost: int, article: int | None = None) -> Paired:
    """A loses the first so many questions, or so many of one article."""
    a_N = own.a_N.copy()
    a_N[(np.arange(len(a_N)) if article is None else np.flatnonzero(own.article_N == article))[:lost]] = 0
    return Paired(a_N, own.b_N, own.article_N)


@pytest.mark.parametrize("lost", [0, 1, 3, 9])
@pytest.mark.parametrize(("questions", "articles"), [(60, 30), (144, 24), (900, 30), (5256, 24)])
def test_few_losses_are_judged_by_how_often_so_few_are_seen(questions, articles, lost):
    """Against draws: rates of articles from a gamma distribution of the margin's mean, and as large a deviation."""
    generator = np.random.default_rng(lost)
    rate_RG = 0.01 * generator.gamma(1.0, 1.0, (200_000, articles))
    expected = np.mean(generator.poisson(rate_RG * questions / articles).sum(axis=1) <= lost)
    found = noninferiority_p(with_losses(alike(questions, articles), lost), 0.01)
    assert found == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 200_000) ** 0.5 + 1e-5)


@given(questions=st.integers(30, 6000), margin=st.floats(0.0005, 0.2))
def test_equal_answers_show_less_than_independent_questions_would(questions, margin):
    assert noninferiority_p(alike(questions), margin) >= (1 - margin) ** questions


@pytest.mark.parametrize("margin", [0.01, 0.001])
def test_equal_answers_show_as_much_as_their_number_allows(margin):
    needed = round(fewest_questions(margin, LEVEL, 30) / 30) * 30
    assert noninferiority_p(alike(needed + 30), margin) <= LEVEL < noninferiority_p(alike(needed - 30), margin)


def test_gains_count_for_nothing_where_few_are_lost():
    own = alike(300, b=0.5)
    gaining = Paired(np.where(np.arange(300) < 100, 1.0, own.a_N), own.b_N, own.article_N)
    assert noninferiority_p(gaining, 0.01) == noninferiority_p(own, 0.01) == pytest.approx(1.1**-30)


def test_questions_in_few_articles_show_less():
    p_values = [noninferiority_p(alike(3000, articles), 0.01) for articles in (20, 30, 100, 1000)]
    assert p_values == sorted(p_values, reverse=True) and len({*p_values}) == 4
    sizes = [100] * 5 + [10] * 50
    uneven = Paired(np.ones(1000), np.ones(1000), np.repeat(np.arange(55), sizes))
    assert uneven.effective_articles == pytest.approx(1000**2 / (5 * 100**2 + 50 * 10**2))


def test_many_losses_are_judged_by_the_bootstrap():
    generator = np.random.default_rng(0)
    b_N = (generator.random(900) < 0.8).astype(float)
    a_N = np.where(generator.random(900) < 0.05, 1 - b_N, b_N)
    own = Paired(a_N, b_N, np.arange(900) % 30)
    p = p_value(a_N - b_N + 0.02, own.article_N, 0.0, resamples=400)
    expected = p / 2 if (a_N - b_N).mean() > -0.02 else 1 - p / 2
    assert noninferiority_p(own, 0.02, resamples=400) == expected
    assert noninferiority_p(own, np.full(900, 0.02), resamples=400) == expected


def test_losses_in_few_articles_are_not_left_to_the_bootstrap():
    own = with_losses(alike(3000), 40, article=3)
    assert noninferiority_p(own, 0.01) > 0.9


def test_too_few_articles_show_nothing_and_no_margin_is_never_kept():
    assert noninferiority_p(alike(100, MIN_ARTICLES - 1), 0.01) is None
    assert noninferiority_p(alike(100), 0.0) == 1


def at_the_margin(generator, questions: int, articles: int, gained: float, uneven: bool = False) -> Paired:
    """A keeps 99% of B, which is right on four of five: it loses some of these, alike or not in all articles."""
    article_N = np.arange(questions) % articles
    ease_G = generator.beta(16, 4, articles)
    right_N = generator.random(questions) < ease_G[article_N]
    drawn_N = generator.random(questions)
    loss_G = (0.01 + gained / 0.8) * (generator.gamma(1.0, 1.0, articles) if uneven else np.ones(articles))
    a_N = np.where(right_N, drawn_N >= loss_G[article_N], drawn_N < gained / 0.2)
    return Paired(a_N.astype(float), right_N.astype(float), article_N)


@pytest.mark.slow
@pytest.mark.parametrize(("questions", "articles"), SIZES)
@pytest.mark.parametrize("gained", [0.0, 0.02])
@pytest.mark.parametrize("uneven", [False, True])
def test_a_loss_of_the_margin_is_rarely_called_none(questions, articles, gained, uneven):
    """False alarms at 2.5%: in 400 samples at most 5%, three standard errors above."""
    generator = np.random.default_rng(questions + articles)
    found = [at_the_margin(generator, questions, articles, gained, uneven) for _ in range(400)]
    p_values = [noninferiority_p(own, 0.01 * own.b_N, resamples=400) for own in found]
    assert np.mean(np.array(p_values) <= LEVEL) <= 0.05


@pytest.mark.slow
def test_a_small_loss_is_found_to_be_one_in_most_large_samples():
    """Power: of half of SQuAD's development set, a codec that loses 0.1% and gains nothing is shown to keep 99%."""
    generator, shown = np.random.default_rng(5), 0
    for _ in range(50):
        own = at_the_margin(generator, 5263, 24, 0.0)
        lost_N = (generator.random(5263) < 0.001) & (own.b_N > 0)
        p = noninferiority_p(Paired(own.b_N - lost_N, own.b_N, own.article_N), 0.01 * own.b_N, resamples=400)
        shown += p <= LEVEL
    assert shown >= 40
