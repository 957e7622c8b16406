"""Which codec at which rate: the least KL within it, beside the next best, on the same questions."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from latentwire.decisions.divergences import kl_ratio
from latentwire.decisions.methods import methods

BOOTSTRAP = {"resamples": 400, "seed": 0}
QUESTIONS = 100


def moved(size, *, noise=0.0):
    """KL sums of this size a position, in 25 articles."""
    generator = np.random.default_rng(round(1000 * size))
    positions = 5.0 + np.arange(QUESTIONS) % 3
    kl = size * positions * (1 + noise * generator.standard_normal(QUESTIONS))
    ids = [f"q{n}" for n in range(QUESTIONS)]
    return pd.DataFrame({"id": ids, "article": np.arange(QUESTIONS) % 25, "positions": positions, "kl": kl})


def dimension(k, codecs):
    """Codecs by name: their bits and their KL, None if it was not measured."""
    return SimpleNamespace(
        k=k,
        rates={arm: {"bits_per_parameter": bits} for arm, (bits, _) in codecs.items()},
        divergence={(arm, "prompt"): moved(kl, noise=0.2) for arm, (_, kl) in codecs.items() if kl is not None},
    )


def test_the_least_kl_within_a_rate_is_taken_and_the_next_best_stands_beside_it():
    first = dimension(72, {"pca": (2.05, 4.9), "pq4": (2.08, 0.1), "rq8": (2.17, 0.11), "int2": (2.25, 0.01)})
    second = dimension(144, {"pca": (4.1, 2.0), "pq4": (2.08, 0.1)})
    two, four, eight = methods([first, second], **BOOTSTRAP)
    # 2.17 is within 10% of 2 bits, 2.25 is not; no codec has about 1.
    assert (two["bits"], two["codec"], two["codec_bits"], two["next_best"], two["next_bits"]) == (
        2, "pq4", 2.08, "rq8", 2.17,
    )  # fmt: skip
    assert two["kl"]["lower"] < 0.1 < two["kl"]["upper"]
    assert two["ratio"]["estimate"] == pytest.approx(0.1 / 0.11, rel=0.05)
    assert two["ratio"]["lower"] < two["ratio"]["estimate"] < two["ratio"]["upper"]
    assert (four["codec"], four["next_best"], eight["codec"]) == ("int2", "pq4", "int2")


def test_a_codec_alone_has_no_next_best_and_without_kl_nothing_is_said():
    (eight,) = methods([dimension(72, {"int8": (8.25, 0.001), "int4": (4.25, None)})], **BOOTSTRAP)
    assert eight["codec"] == "int8" and eight["next_best"] is None and eight["ratio"] is None
    assert methods([dimension(72, {"int8": (8.25, None)})], **BOOTSTRAP) == []


def test_a_ratio_is_paired_by_question():
    a, b = moved(0.1, noise=0.5), moved(0.1, noise=0.5)
    twice = b.assign(kl=2 * b["kl"]).sample(frac=1, random_state=0)
    ratio = kl_ratio(twice, a, **BOOTSTRAP)
    assert ratio["estimate"] == pytest.approx(2) and ratio["standard_error"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(AssertionError, match="different positions"):
        kl_ratio(a, b.iloc[1:], **BOOTSTRAP)
