"""Decoding in fixed shapes gives the answers of the library's own decoding, in memory that stays where it is."""

import numpy as np
import pytest
import torch

from latentwire.attention import grouped_attention
from latentwire.evaluation.generate import Answer, Decoder
from latentwire.evaluation.prefixes import prefix_runs
from latentwire.evaluation.steps import ASK_EVERY, PLACES_MULTIPLE, FixedSteps, ReservedLayer

CAP = 11


def types_of(sequences) -> torch.Tensor:
    return torch.from_numpy(np.unique(np.concatenate(sequences))).long()


@pytest.fixture
def batches(sequences) -> list[list[np.ndarray]]:
    """Batches of prompts that share beginnings and of others; larger ones and smaller ones follow each other."""
    chosen = [sequences[:9], sequences[::5], sequences[33:34], sequences[3:30], sequences[:2]]
    assert {len(set(prefix_runs(batch).run_of)) < len(batch) for batch in chosen} == {True, False}
    return chosen


def decoders(model, tokenizer, cap: int = CAP) -> tuple[Decoder, Decoder]:
    """The library's decoding, and that in fixed shapes."""
    library, ours = (Decoder(model, tokenizer, cap, fixed_steps=fixed) for fixed in (False, True))
    assert library.fixed is None and ours.fixed is not None
    return library, ours


@pytest.mark.parametrize("given_as", ["text", "embeddings"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_tokens_are_those_of_generate(tiny_model, tokenizer, batches, monkeypatch, given_as, kv_heads):
    model, tokens = tiny_model(num_key_value_heads=kv_heads), []
    library, ours = decoders(model, tokenizer)
    for decoder in (library, ours):
        answer = decoder._answer
        monkeypatch.setattr(decoder, "_answer", lambda own, answer=answer: tokens.append(own) or answer(own))
    distinct = set()
    for batch in batches:
        ids_U = types_of(batch)
        rebuilt = () if given_as == "text" else (model.get_input_embeddings().weight[ids_U], ids_U)
        expected = library.answers(batch, *rebuilt)
        assert ours.answers(batch, *rebuilt) == expected
        theirs, found = tokens[: len(batch)], tokens[len(batch) :]
        for row, own, answer in zip(theirs, found, expected, strict=True):
            assert own[: answer.tokens] == row[: answer.tokens]
        tokens.clear()
        distinct |= {answer.text for answer in expected}
    assert len(distinct) > 10


def test_no_step_reads_another_shape_or_other_memory(tiny_model, tokenizer, batches, monkeypatch):
    """A graph replays the addresses and shapes that it was captured with."""
    model = tiny_model()
    _, ours = decoders(model, tokenizer)
    seen: dict[tuple[int, int], set] = {}
    step = FixedSteps._step

    def observed(self, steps):
        step(self, steps)
        layers = self.cache.layers
        own = (vars(steps)[name].data_ptr() for name in ("tokens_B", "positions_B", "mask_BP", "new_BN", "count"))
        kept = [part.data_ptr() for layer in layers for part in (layer.keys, layer.values)]
        shape = (len(steps.tokens_B), steps.mask_BP.shape[-1])
        assert {tuple(part.shape[::2]) for layer in layers for part in (layer.keys, layer.values)} == {
            (shape[0], shape[1])
        }
        seen.setdefault(shape, set()).add((*own, *kept))

    monkeypatch.setattr(FixedSteps, "_step", observed)
    largest = max(batches, key=lambda batch: len(batch) * max(map(len, batch)))
    ours.answers(largest)
    seen.clear()
    for batch in 2 * batches:
        ours.answers(batch)
    assert len(seen) > 2
    assert all(len(addresses) == 1 for addresses in seen.values())
    assert all(places % PLACES_MULTIPLE == 0 for _, places in seen)


def test_more_room_gives_back_what_was_captured_for_less(tiny_model, tokenizer, sequences):
    _, ours = decoders(tiny_model(), tokenizer)
    ours.answers(sequences[:2])
    small = set(ours.fixed.steps)
    ours.answers(sequences[:30])
    assert small and not small & set(ours.fixed.steps)


def test_what_stood_in_the_memory_before_changes_no_answer(tiny_model, tokenizer, sequences):
    model = tiny_model()
    _, ours = decoders(model, tokenizer)
    ours.answers(sequences[:30])
    again = ours.answers(sequences[:3])
    assert again == decoders(model, tokenizer)[1].answers(sequences[:3])


@pytest.mark.parametrize("cap", [1, 2, ASK_EVERY, ASK_EVERY + 1])
def test_every_cap_is_kept(tiny_model, tokenizer, sequences, cap):
    library, ours = decoders(tiny_model(), tokenizer, cap)
    assert ours.answers(sequences[:6]) == library.answers(sequences[:6])


def test_the_host_asks_every_few_tokens_and_ends_a_batch_that_has_ended(scripted_model, tokenizer, monkeypatch):
    marine, newline, end = tokenizer.convert_tokens_to_ids(["Ġmarine", "Ċ", "<|end|>"])
    steps, step = [], FixedSteps._step
    monkeypatch.setattr(FixedSteps, "_step", lambda *own: steps.append(1) or step(*own))
    _, ours = decoders(scripted_model({marine: end, newline: marine}), tokenizer, 30)
    assert ours.answers([np.array([marine]), np.array([newline])]) == [
        Answer("", 0, "stop"),
        Answer("marine", 1, "stop"),
    ]
    assert len(steps) == ASK_EVERY - 1


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["Ġmarine", "Ċ", "Ġpoet"], Answer("marine", 2, "stop")),
        (["Ċ", "Ġmarine", "<|end|>"], Answer("marine", 2, "stop")),
        (["Ġ", "Ċ", "Ġmarine", "<|end|>"], Answer("marine", 3, "stop")),
        (["Ġmarine", "Ġpoet", "<|end|>"], Answer("marine poet", 2, "stop")),
        (["<|end|>"], Answer("", 0, "stop")),
    ],
)
def test_an_answer_ends_where_the_librarys_decoding_ends_it(scripted_model, tokenizer, tokens, expected):
    ids = tokenizer.convert_tokens_to_ids(["<|assistant|>", *tokens])
    for decoder in decoders(scripted_model(dict(zip(ids, ids[1:], strict=False))), tokenizer):
        assert decoder.answers([np.array(ids[:1])]) == [expected]


@pytest.mark.parametrize(("value", "refused"), [(float("nan"), True), (float("inf"), True), (-float("inf"), False)])
def test_logits_that_are_not_finite_are_an_error_and_tokens_that_are_ruled_out_are_not(
    tiny_model, tokenizer, sequences, value, refused
):
    model = tiny_model(tie_word_embeddings=False)
    _, ours = decoders(model, tokenizer)
    head = model.lm_head.forward
    model.lm_head.forward = lambda hidden: head(hidden).index_fill(-1, torch.tensor([7]), value)
    if refused:
        with pytest.raises(FloatingPointError, match="not finite in torch.float32: another model.dtype"):
            ours.answers(sequences[:2])
    else:
        assert len(ours.answers(sequences[:2])) == 2


def test_deterministic_mode_is_as_it_was_after_an_answer(tiny_model, tokenizer, sequences):
    _, ours = decoders(tiny_model(), tokenizer)
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        ours.answers(sequences[:2])
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.set_deterministic_debug_mode(before)


def test_a_layer_of_another_batch_begins_with_nothing():
    layer = ReservedLayer(torch.zeros(1, dtype=torch.int64))
    layer.begin(8, 16)
    layer.update(torch.ones(2, 2, 3, 4), torch.ones(2, 2, 3, 5))
    layer.begin(4, 16)
    assert layer.get_seq_length() == 0
    keys, values = layer.update(torch.full((1, 2, 2, 4), 7.0), torch.full((1, 2, 2, 5), 8.0))
    assert keys.shape == (1, 2, 2, 4) and bool((keys == 7).all()) and bool((values == 8).all())


@pytest.mark.parametrize(("heads", "groups", "queries"), [(8, 2, 1), (8, 2, 5), (9, 3, 4), (4, 4, 3), (6, 1, 2)])
@pytest.mark.parametrize("added", [False, True])
def test_grouped_attention_is_attention_with_copied_keys(heads, groups, queries, added):
    torch.manual_seed(0)
    query = torch.randn(3, heads, queries, 4, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(3, groups, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.rand(3, 1, queries, 7) < 0.6
    mask[..., 0] = True
    if added:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    copied = [own.repeat_interleave(heads // groups, dim=1) for own in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *copied, attn_mask=mask, scale=0.3)
    found = grouped_attention(query, key, value, mask, 0.3)
    torch.testing.assert_close(found, expected.transpose(1, 2))
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), (query, key, value), retain_graph=True)
    theirs = torch.autograd.grad((expected.transpose(1, 2) * weights).sum(), (query, key, value))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)
