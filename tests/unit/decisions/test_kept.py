"""Which codecs keep a share of the text's F1: what is shown, what is cheapest, and how often that is wrong."""

import numpy as np
import pandas as pd
import pytest

from latentwire.decisions.evidence import ArmScores, DimensionResults
from latentwire.decisions.kept import LEVEL, kept
from latentwire.evaluation.noninferiority import Paired, noninferiority_p
from latentwire.evaluation.statistics import holm

ARTICLES, PER_ARTICLE = 30, 100
BOOTSTRAP = {"resamples": 400, "seed": 0}


def scores(f1_N):
    table = pd.DataFrame(
        {"id": [f"q{n}" for n in range(len(f1_N))], "article": np.arange(len(f1_N)) % ARTICLES, "f1": f1_N}
    )
    return ArmScores(table, table.rename(columns={"f1": "em"}), None, table, 1)


def results(arms, bits, k=16):
    rates = {
        arm: {"bits_per_parameter": value, "megabytes": 1.0, "megabytes_by_dtype": {"bf16": 1.0}}
        for arm, value in bits.items()
    }
    own = {arm: scores(f1_N) for arm, f1_N in arms.items()}
    return DimensionResults(
        k=k, gate={}, run_phase2=False, arms=own, reconstruction={}, summaries={}, histories={}, seeds=[0],
        divergence={}, kl_by_seed={}, rates=rates,
    )  # fmt: skip


def answers(generator, share, text_N=None, lost=0.0):
    """F1 of a reader that is right on this share; or the text's, of which a share is lost at random."""
    if text_N is None:
        ease_G = generator.beta(8 * share, 8 * (1 - share), ARTICLES)
        return (generator.random(ARTICLES * PER_ARTICLE) < np.tile(ease_G, PER_ARTICLE)).astype(float)
    return text_N * (generator.random(len(text_N)) >= lost)


@pytest.fixture
def text_N():
    return answers(np.random.default_rng(0), 0.8)


def test_what_is_shown_is_ordered_by_bits_and_the_first_is_the_cheapest(text_N):
    generator = np.random.default_rng(1)
    arms = {"text": text_N, "int8": text_N, "pq4": text_N, "pca": answers(generator, 0, text_N, lost=0.5)}
    ninety_nine, stricter = kept([results(arms, {"int8": 8.25, "pq4": 2.08, "pca": 2.1})], **BOOTSTRAP)
    assert (ninety_nine["share"], ninety_nine["shown"], ninety_nine["cheapest"]) == (0.99, ["pq4", "int8"], "pq4")
    assert stricter["share"] == 0.999 and ninety_nine["bits"] == {"pca:16": 2.1, "int8": 8.25, "pq4": 2.08}
    assert ninety_nine["p"]["pca:16"] > 0.9 >= LEVEL > ninety_nine["p"]["pq4"]


def test_p_values_are_one_sided_and_corrected_over_the_codecs_of_all_dimensions(text_N):
    generator = np.random.default_rng(2)
    lossy = {k: answers(generator, 0, text_N, lost=0.004 * k) for k in (1, 2)}
    found = kept([results({"text": text_N, "pca": lossy[k]}, {"pca": 2.0 * k}, k) for k in (1, 2)], **BOOTSTRAP)[0]
    single = {}
    for k, own_N in lossy.items():
        paired = Paired(own_N, text_N, np.arange(len(text_N)) % ARTICLES)
        single[f"pca:{k}"] = noninferiority_p(paired, 0.01 * text_N, **BOOTSTRAP)
    assert found["p"] == pytest.approx(holm(single))


def test_too_few_articles_show_nothing(text_N):
    few = {"text": text_N[:ARTICLES], "pq4": text_N[:ARTICLES]}
    found = kept([results({arm: own[:15] for arm, own in few.items()}, {"pq4": 2.08})], **BOOTSTRAP)[0]
    assert found["p"] == {"pq4": None} and found["shown"] == [] and found["cheapest"] is None


def test_equal_answers_to_few_questions_show_nothing_and_the_number_that_would_stands_beside(text_N):
    few = ARTICLES * 4
    found = kept(
        [results(dict.fromkeys(("text", "fp8", "int8"), text_N[:few]), {"fp8": 8.0, "int8": 8.3})], **BOOTSTRAP
    )
    for own in found:
        assert own["shown"] == [] and own["needed"] > few
        enough = round(own["needed"] / ARTICLES + 1)
        text = np.tile(text_N[:few], 1 + enough // 4)[: enough * ARTICLES]
        arms = dict.fromkeys(("text", "fp8", "int8"), text)
        again = kept([results(arms, {"fp8": 8.0, "int8": 8.3})], **BOOTSTRAP)
        (same,) = (other for other in again if other["share"] == own["share"])
        assert same["shown"] == ["fp8", "int8"]


@pytest.mark.slow
def test_a_codec_that_keeps_exactly_the_share_is_rarely_shown_to_keep_it():
    """False alarms of the one-sided test at 2.5%: in 400 samples at most 5%, five standard errors above."""
    generator, alarms = np.random.default_rng(3), 0
    for _ in range(400):
        text_N = answers(generator, 0.8)
        arms = {"text": text_N, "pq4": answers(generator, 0, text_N, lost=0.01)}
        alarms += bool(kept([results(arms, {"pq4": 2.08})], resamples=200, seed=0)[0]["shown"])
    assert alarms <= 0.05 * 400
