"""Token counts: sums over prompts, mergeable, and loud about foreign ids."""

import itertools
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.compression import counts
from latentwire.compression.counts import (
    count_splits,
    count_tokens,
    load_counts,
    mean_embedding,
    pca_sample_size,
    save_counts,
)
from latentwire.errors import InputError

V = 20


class Tracked(np.ndarray):
    """Ids that can be referred to weakly."""


corpora = st.lists(st.lists(st.integers(0, V - 1), max_size=8), max_size=6)


@pytest.fixture(autouse=True, scope="module")
def _several_chunks():
    """A corpus of these tests is counted in several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "CHUNK_TOKENS", 7)
        yield


@given(corpora)
def test_each_id_is_counted_as_often_as_it_occurs(prompts):
    counts_V = count_tokens(prompts, V)
    flat = [token for prompt in prompts for token in prompt]
    assert counts_V.dtype == torch.int64
    assert counts_V.tolist() == [flat.count(token) for token in range(V)]


@given(corpora, corpora)
def test_counts_of_two_corpora_add_up(first, second):
    assert torch.equal(count_tokens(first, V) + count_tokens(second, V), count_tokens(first + second, V))


@given(corpora, st.integers(0, 6))
def test_an_iterator_is_counted_as_far_as_it_is_read(prompts, taken):
    stream = iter(prompts)
    first = count_tokens(itertools.islice(stream, taken), V)
    assert torch.equal(first, count_tokens(prompts[:taken], V))
    assert torch.equal(first + count_tokens(stream, V), count_tokens(prompts, V))


def test_pca_counts_the_first_prompts_and_training_all_of_them():
    prompts = [[1], [2, 2], [3], [1]]
    found = count_splits(iter(prompts), len(prompts), 2, V)
    assert torch.equal(found["pca"], count_tokens(prompts[:2], V))
    assert torch.equal(found["train"], count_tokens(prompts, V))
    with pytest.raises(InputError, match=r"pca.samples 5.*4"):
        count_splits(iter(prompts), len(prompts), 5, V)


def test_of_a_long_corpus_no_more_than_a_chunk_is_kept():
    """Prompts that nobody refers to any more are gone; 7 tokens are a chunk here."""
    drawn_before = []

    def drawn():
        for _ in range(1000):
            prompt = Tracked(2, dtype=np.int64)
            prompt[:] = 1, 2
            drawn_before.append(weakref.ref(prompt))
            yield prompt
            del prompt
            assert sum(reference() is not None for reference in drawn_before) <= 8

    assert count_tokens(drawn(), V).tolist()[1:3] == [1000, 1000]


def test_prompts_as_they_are_stored_are_counted():
    assert count_tokens([np.array([1, 1, 3], dtype=np.int32)], 4).tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize(("bad", "prompt"), [(V, [0, V, 3]), (-1, [4, -1]), (99, [99])])
def test_an_id_outside_the_table_is_named(bad, prompt):
    with pytest.raises(ValueError, match=rf"token id {bad} .* {V} rows"):
        count_tokens([[0], prompt], V)


def test_named_counts_come_back_from_disk(tmp_path):
    pca_V, train_V = count_tokens([[1, 2]], V), count_tokens([[1, 2], [3]], V)
    save_counts(tmp_path / "counts.safetensors", pca=pca_V, train=train_V)
    loaded = load_counts(tmp_path / "counts.safetensors")
    assert loaded.keys() == {"pca", "train"}
    assert torch.equal(loaded["pca"], pca_V)
    assert torch.equal(loaded["train"], train_V)


@pytest.mark.parametrize(
    ("samples", "available", "expected"),
    [("auto", 10_000, 5000), ("auto", 600, 300), ("auto", 1, 1), ("all", 700, 700), (25, 700, 25)],
)
def test_pca_sees_half_of_the_prompts_and_at_most_5000_unless_told_otherwise(samples, available, expected):
    assert pca_sample_size(samples, available) == expected


@pytest.mark.parametrize("samples", [0, 701])
def test_a_pca_sample_that_the_training_prompts_do_not_hold_is_refused(samples):
    with pytest.raises(InputError, match=rf"pca.samples {samples}.*700"):
        pca_sample_size(samples, 700)


@given(corpora.filter(any))
def test_the_mean_embedding_is_that_of_the_gathered_occurrences(prompts):
    table_VD = torch.randn(V, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    gathered_ND = table_VD[[token for prompt in prompts for token in prompt]].double()
    found_D = mean_embedding(table_VD, count_tokens(prompts, V))
    torch.testing.assert_close(found_D, gathered_ND.mean(dim=0), rtol=1e-12, atol=1e-12)
