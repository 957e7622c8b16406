"""Losses through a frozen head: float64 autograd as the reference, block by block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.training.head_loss import frozen_head_cross_entropy, frozen_head_divergence


def operands(count: int, dtype: torch.dtype, *, bias: bool = False, seed: int = 0):
    """Hidden states, a head of 301 rows, its bias and labels."""
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = 2 * torch.randn(count, 24, generator=generator)
    weight_VD = torch.randn(301, 24, generator=generator) / 24**0.5
    bias_V = torch.randn(301, generator=generator).to(dtype) if bias else None
    labels_N = torch.randint(301, (count,), generator=generator)
    return hidden_ND.to(dtype).requires_grad_(), weight_VD.to(dtype), bias_V, labels_N


def reference(hidden_ND, weight_VD, bias_V, labels_N, upstream_N):
    """Loss and gradient by autograd in float64, every logit at once."""
    hidden64_ND = hidden_ND.detach().double().requires_grad_()
    logits_NV = F.linear(hidden64_ND, weight_VD.double(), None if bias_V is None else bias_V.double())
    loss_N = F.cross_entropy(logits_NV, labels_N, reduction="none")
    (gradient_ND,) = torch.autograd.grad(loss_N, hidden64_ND, upstream_N.double())
    return loss_N, gradient_ND


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 40), block=st.integers(1, 50), bias=st.booleans(), seed=st.integers(0, 1000))
def test_loss_and_gradient_are_those_of_float64_autograd_at_any_block(count, block, bias, seed):
    hidden_ND, weight_VD, bias_V, labels_N = operands(count, torch.float32, bias=bias, seed=seed)
    upstream_N = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    loss_N = frozen_head_cross_entropy(hidden_ND, weight_VD, labels_N, bias_V, block=block)
    (gradient_ND,) = torch.autograd.grad(loss_N, hidden_ND, upstream_N)
    expected_N, expected_ND = reference(hidden_ND, weight_VD, bias_V, labels_N, upstream_N)
    torch.testing.assert_close(loss_N.double(), expected_N, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient_ND.double(), expected_ND, atol=1e-5, rtol=1e-5)


def test_the_loss_of_a_bfloat16_model_is_float32():
    """Rounding the loss to bfloat16 would cost 0.4%; the logits' own rounding averages out over 400 tokens."""
    hidden_ND, weight_VD, _, labels_N = operands(400, torch.bfloat16)
    loss_N = frozen_head_cross_entropy(hidden_ND, weight_VD, labels_N)
    assert loss_N.dtype == torch.float32
    upstream_N = torch.full((400,), 1 / 400)
    expected_N, expected_ND = reference(hidden_ND, weight_VD, None, labels_N, upstream_N)
    assert loss_N.double().mean().item() == pytest.approx(expected_N.mean().item(), rel=1e-3)
    (gradient_ND,) = torch.autograd.grad(loss_N.mean(), hidden_ND)
    assert gradient_ND.dtype == torch.bfloat16
    assert (gradient_ND.double() - expected_ND).norm() < 0.01 * expected_ND.norm()


def test_no_more_logits_than_a_blocks_are_made(monkeypatch):
    shapes, linear = [], F.linear

    def observed(hidden_ND, *others):
        shapes.append(len(hidden_ND))
        return linear(hidden_ND, *others)

    monkeypatch.setattr(F, "linear", observed)
    hidden_ND, weight_VD, _, labels_N = operands(25, torch.float32)
    frozen_head_cross_entropy(hidden_ND, weight_VD, labels_N, block=10).sum().backward()
    assert shapes == [10, 10, 5]  # and none again in the backward pass


def test_without_a_gradient_none_is_made():
    hidden_ND, weight_VD, _, labels_N = operands(5, torch.float32)
    with torch.no_grad():
        assert not frozen_head_cross_entropy(hidden_ND, weight_VD, labels_N).requires_grad
    assert not frozen_head_cross_entropy(hidden_ND.detach(), weight_VD, labels_N).requires_grad


# KL of two readings


def divergence_reference(hidden_ND, weight_VD, bias_V, text_ND, upstream_N):
    """KL and its gradient by torch's kl_div and autograd in float64, every logit at once."""
    hidden64_ND = hidden_ND.detach().double().requires_grad_()
    text_NV, own_NV = (
        F.linear(states_ND, weight_VD.double(), None if bias_V is None else bias_V.double()).log_softmax(dim=1)
        for states_ND in (text_ND.double(), hidden64_ND)
    )
    loss_N = F.kl_div(own_NV, text_NV, reduction="none", log_target=True).sum(dim=1)
    (gradient_ND,) = torch.autograd.grad(loss_N, hidden64_ND, upstream_N.double())
    return loss_N, gradient_ND


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 40), block=st.integers(1, 50), bias=st.booleans(), seed=st.integers(0, 1000))
def test_the_divergence_and_its_gradient_are_those_of_kl_div_in_float64_at_any_block(count, block, bias, seed):
    hidden_ND, weight_VD, bias_V, _ = operands(count, torch.float32, bias=bias, seed=seed)
    text_ND = operands(count, torch.float32, seed=seed + 1)[0].detach()
    upstream_N = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    loss_N = frozen_head_divergence(hidden_ND, weight_VD, text_ND, bias_V, block=block)
    (gradient_ND,) = torch.autograd.grad(loss_N, hidden_ND, upstream_N)
    expected_N, expected_ND = divergence_reference(hidden_ND, weight_VD, bias_V, text_ND, upstream_N)
    torch.testing.assert_close(loss_N.double(), expected_N, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient_ND.double(), expected_ND, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_finite_differences(bias):
    hidden_ND, weight_VD, bias_V, labels_N = operands(7, torch.float64, bias=bias)
    text_ND = operands(7, torch.float64, seed=1)[0].detach()
    torch.autograd.gradcheck(
        lambda states_ND: frozen_head_divergence(states_ND, weight_VD, text_ND, bias_V, block=3), hidden_ND
    )
    torch.autograd.gradcheck(
        lambda states_ND: frozen_head_cross_entropy(states_ND, weight_VD, labels_N, bias_V, block=3), hidden_ND
    )


def test_the_same_hidden_states_diverge_by_nothing_and_others_do():
    hidden_ND, weight_VD, _, _ = operands(9, torch.float32)
    loss_N = frozen_head_divergence(hidden_ND, weight_VD, hidden_ND.detach(), block=4)
    (gradient_ND,) = torch.autograd.grad(loss_N.sum(), hidden_ND)
    assert (loss_N == 0).all() and (gradient_ND == 0).all()
    others_N = frozen_head_divergence(hidden_ND, weight_VD, hidden_ND.detach().flip(0), block=4)
    assert (others_N[[0, 1, 2, 3, 5, 6, 7, 8]] > 0.1).all()


def test_a_token_that_the_head_rules_out_adds_nothing():
    hidden_ND, weight_VD, bias_V, _ = operands(5, torch.float32, bias=True)
    text_ND = operands(5, torch.float32, seed=1)[0].detach()
    bias_V[::7] = -torch.inf
    loss_N = frozen_head_divergence(hidden_ND, weight_VD, text_ND, bias_V)
    (gradient_ND,) = torch.autograd.grad(loss_N.sum(), hidden_ND)
    kept_V = bias_V.isfinite()
    expected_N, expected_ND = divergence_reference(
        hidden_ND, weight_VD[kept_V], bias_V[kept_V], text_ND, torch.ones(5)
    )
    torch.testing.assert_close(loss_N.double(), expected_N, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient_ND.double(), expected_ND, atol=1e-5, rtol=1e-5)


def test_the_divergence_of_a_bfloat16_model_is_float32():
    hidden_ND, weight_VD, _, _ = operands(400, torch.bfloat16)
    text_ND = operands(400, torch.bfloat16, seed=1)[0].detach()
    loss_N = frozen_head_divergence(hidden_ND, weight_VD, text_ND)
    expected_N, _ = divergence_reference(hidden_ND, weight_VD, None, text_ND, torch.ones(400))
    assert loss_N.dtype == torch.float32
    assert loss_N.double().mean().item() == pytest.approx(expected_N.mean().item(), rel=1e-3)


def test_of_both_readings_no_more_logits_than_a_blocks_are_made(monkeypatch):
    shapes, linear = [], F.linear

    def observed(hidden_ND, *others):
        shapes.append(len(hidden_ND))
        return linear(hidden_ND, *others)

    monkeypatch.setattr(F, "linear", observed)
    hidden_ND, weight_VD, _, _ = operands(25, torch.float32)
    frozen_head_divergence(hidden_ND, weight_VD, hidden_ND.detach(), block=10).sum().backward()
    assert shapes == [10, 10, 10, 10, 5, 5]  # and none again in the backward pass
