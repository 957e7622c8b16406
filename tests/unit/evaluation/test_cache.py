"""The preallocated cache: the library's own keys and values, without its copies."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from latentwire.evaluation.cache import PreallocatedLayer, preallocated_cache
from latentwire.evaluation.generate import Decoder


def states(lengths: list[int], heads: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [(torch.randn(3, heads, length, 4), torch.randn(3, heads, length, 5)) for length in lengths]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 4))
def test_a_layer_returns_what_the_librarys_own_returns(lengths, spare):
    ours, theirs = PreallocatedLayer(sum(lengths) + spare), DynamicLayer()
    for keys, values in states(lengths):
        for got, expected in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(got, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_what_is_there_is_not_copied():
    layer = PreallocatedLayer(6)
    places = {tuple(part.data_ptr() for part in layer.update(*new)) for new in states([4, 1, 1])}
    assert len(places) == 1


def test_more_than_was_allocated_is_an_error():
    layer = PreallocatedLayer(5)
    layer.update(*states([4])[0])
    with pytest.raises(RuntimeError, match="size"):
        layer.update(*states([2])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_gives_the_same_logits(tiny_model, dtype):
    model, ids = tiny_model(dtype=dtype), torch.arange(24).reshape(2, 12)
    logits = []
    for cache in (preallocated_cache(12), DynamicCache(config=model.config)):
        parts = [model(ids[:, part], past_key_values=cache).logits for part in (slice(0, 10), [10], [11])]
        logits.append(torch.cat(parts, dim=1))
    torch.testing.assert_close(*logits, rtol=0, atol=0)


def test_the_decoder_reserves_the_prompt_and_the_cap(tiny_model, tokenizer, sequences, monkeypatch):
    model, seen = tiny_model(), []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **given: seen.append(given["past_key_values"]) or generate(**given))
    Decoder(model, tokenizer, 7).answers(sequences[:2])
    (cache,) = seen
    assert isinstance(cache, Cache) and isinstance(cache.layer_class_to_replicate, partial)
    assert {layer.places for layer in cache.layers} == {max(map(len, sequences[:2])) + 7}
    assert len(cache.layers) == model.config.num_hidden_layers
