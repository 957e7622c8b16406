"""Prompts in one row are read as each alone: losses and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretended import varlen_attention
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from latentwire import attention as attention_module
from latentwire import packing
from latentwire.packing import IGNORED, Layout, block_mask, prompt_batch
from latentwire.training.phase2 import PromptScorer, repeated_mask

VOCAB = 60
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
ONE_ROW = Layout(packs=True, one_row=True)
LENGTHS = (7, 33, 12, 20, 30)


def llama(kv_heads: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=kv_heads, initializer_range=0.3)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


@pytest.fixture
def prompts() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Prompts of several lengths with their label masks; first tokens are among the predicted ones, in vain."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, VOCAB, length) for length in LENGTHS]
    return sequences, [np.insert(rng.random(length - 1) < 0.7, 0, True) for length in LENGTHS]


def loss_and_gradient(scorer, batch, table_VD) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the labels' losses, and its gradient by the rows of a table."""
    rows_VD = table_VD.clone().requires_grad_()
    loss = scorer.cross_entropy(rows_VD[batch.ids_BL], batch, reduction="none").sum()
    (gradient_VD,) = torch.autograd.grad(loss, rows_VD)
    return loss.detach(), gradient_VD


def one_by_one(scorer, prompts, table_VD) -> tuple[torch.Tensor, torch.Tensor]:
    found = [
        loss_and_gradient(scorer, prompt_batch([ids], [mask]), table_VD) for ids, mask in zip(*prompts, strict=True)
    ]
    losses, gradients = zip(*found, strict=True)
    return torch.stack(losses).sum(), torch.stack(gradients).sum(dim=0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.booleans())
def test_every_prompt_stands_once_and_whole_in_rows_as_long_as_the_longest_or_in_one(lengths, one_row):
    layout = Layout(packs=True, one_row=one_row)
    sequences = [np.arange(length) + 100 * index for index, length in enumerate(lengths)]
    batch = prompt_batch(sequences, [np.ones(length, dtype=bool) for length in lengths], layout)
    assert batch.ids_BL.shape[1] == (sum(lengths) if one_row else max(lengths))
    assert len(batch.ids_BL) == 1 or not one_row
    for index, ids in enumerate(sequences):
        own = batch.owner_BL == index
        assert batch.ids_BL[own].tolist() == ids.tolist()
        assert batch.positions_BL[own].tolist() == list(range(len(ids)))
        assert batch.labels_BL[own].tolist() == [IGNORED, *ids[1:].tolist()]
        assert len(own.any(dim=1).nonzero()) == 1
    assert int(batch.mask_BL.sum()) == sum(lengths)
    assert batch.packed == (len(batch.ids_BL) < len(lengths))


def test_prompts_that_do_not_share_a_row_stay_in_their_order():
    assert Layout(packs=True).rows([5, 9, 8]) == [[0], [1], [2]]
    assert Layout(packs=True).rows([5, 9, 4]) == [[1], [0, 2]]
    assert Layout(packs=False).rows([5, 9, 4]) == [[0], [1], [2]]


@pytest.mark.parametrize("build", [llama, lambda: llama(4), gpt2], ids=["grouped heads", "heads", "learned positions"])
@pytest.mark.parametrize("layout", [Layout(), Layout(packs=True), ONE_ROW])
def test_the_loss_and_its_gradient_are_those_of_prompts_one_by_one(build, layout, prompts):
    scorer, table_VD = PromptScorer(build()), torch.randn(VOCAB, 32, generator=torch.Generator().manual_seed(1))
    batch = prompt_batch(*prompts, layout)
    assert batch.packed == layout.packs
    found, expected = loss_and_gradient(scorer, batch, table_VD), one_by_one(scorer, prompts, table_VD)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("planted", ["positions", "mask", "labels"])
def test_a_planted_mistake_is_seen(planted, prompts, monkeypatch):
    scorer, table_VD = PromptScorer(llama()), torch.randn(VOCAB, 32, generator=torch.Generator().manual_seed(1))
    batch = prompt_batch(*prompts, ONE_ROW)
    if planted == "positions":
        batch = replace(batch, positions_BL=torch.arange(batch.ids_BL.shape[1]).expand_as(batch.ids_BL).clone())
        batch.positions_BL[:, 20:] += 1  # rotary attention sees differences alone
    elif planted == "mask":
        monkeypatch.setattr(
            packing, "block_mask", lambda owner_BL, dtype: block_mask(torch.zeros_like(owner_BL), dtype)
        )
    else:
        batch = replace(batch, labels_BL=batch.ids_BL.masked_fill(batch.owner_BL < 0, IGNORED))
        batch.labels_BL[:, 0] = IGNORED
    loss, _ = loss_and_gradient(scorer, batch, table_VD)
    assert abs(loss / one_by_one(scorer, prompts, table_VD)[0] - 1) > 1e-3


def test_no_place_sees_nothing(prompts):
    for layout in (Layout(packs=True), ONE_ROW):
        mask = block_mask(prompt_batch(*prompts, layout).owner_BL, torch.bfloat16)
        assert bool((mask == 0).any(dim=-1).all())


def test_a_token_is_repeated_in_its_own_prompt_alone(prompts):
    order = [index for row in ONE_ROW.rows(LENGTHS) for index in row]
    alone = torch.cat([repeated_mask(prompt_batch([prompts[0][i]], [prompts[1][i]])) for i in order])
    assert torch.equal(repeated_mask(prompt_batch(*prompts, ONE_ROW)), alone)
    assert 0 < int(alone.sum()) < len(alone)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_within_packed_prompts_is_attention_under_the_mask_of_blocks(groups, prompts, monkeypatch):
    """In float64; of the kernel, which is CUDA's alone, the arguments count."""
    batch, generator = prompt_batch(*prompts, ONE_ROW), torch.Generator().manual_seed(0)

    def normal(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, sum(LENGTHS), 8, generator=generator, dtype=torch.float64)

    def kernel(query, key, value, ends, ends_k, longest, longest_k, **options):
        assert query.shape == key.shape == value.shape == (sum(LENGTHS), 4, 8)
        assert all(own.is_contiguous() for own in (query, key, value))
        assert ends is ends_k and longest == longest_k == max(LENGTHS) and ends.dtype == torch.int32
        return varlen_attention(query, key, value, ends, **options)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    query, key, value = normal(4), normal(groups), normal(groups)
    told = batch.boundaries
    found = attention_module.packed_attention(query, key, value, told["cu_seq_lens_q"], told["max_length_q"], 0.3)
    mask = block_mask(batch.owner_BL, torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    assert torch.equal(found, expected.transpose(1, 2))


def test_models_whose_layers_look_a_fixed_number_of_places_back_have_a_row_per_prompt():
    config = MistralConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2, sliding_window=8)
    assert not Layout.of(MistralForCausalLM(config)).packs
    assert Layout.of(llama()).packs


def test_the_boundaries_of_one_row_reach_the_attention_of_a_loaded_model(prompts, monkeypatch):
    """Where a kernel for sequences of different lengths takes the mask's place."""
    model, seen = llama(), []
    model.set_attn_implementation(attention_module.ROWS_NOT_EMPTY)
    attention = attention_module.sdpa_attention_forward

    def observed(*arguments, **options):
        seen.append(options)
        own = {name: value for name, value in options.items() if "len" not in name}
        return attention(*arguments, **own)

    monkeypatch.setattr(attention_module, "sdpa_attention_forward", observed)
    scorer = PromptScorer(model)
    scorer.decoder.layout = ONE_ROW
    batch = prompt_batch(*prompts, ONE_ROW)
    scorer.cross_entropy(torch.zeros(1, sum(LENGTHS), 32), batch)
    ends = [0, *np.cumsum(sorted(LENGTHS, reverse=True))]
    assert len(seen) == 2
    assert all(own["cu_seq_lens_q"].tolist() == ends and own["max_length_q"] == max(LENGTHS) for own in seen)
