"""Losses through a frozen output head, never with more logits in memory than a block of tokens has.

Shape suffixes: N predicted tokens, D embedding dimensions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

BLOCK_TOKENS = 512

# The loss [N] of a block of tokens, given which they are and their log-probabilities [N, V]. If its gradient is
# wanted, the log-probabilities become the loss's gradient with respect to the logits, in place.
BlockLoss = Callable[[slice, torch.Tensor, bool], torch.Tensor]


class _FrozenHeadLoss(torch.autograd.Function):
    """The gradient of the hidden states is made beside the loss, so that no logits are kept or computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        block_loss: BlockLoss,
        block: int,
    ) -> torch.Tensor:
        differentiable = ctx.needs_input_grad[0]
        precision = torch.promote_types(hidden_ND.dtype, torch.float32)
        loss_N = torch.empty(len(hidden_ND), dtype=precision, device=hidden_ND.device)
        gradient_ND = torch.empty_like(hidden_ND) if differentiable else None
        for start in range(0, len(hidden_ND), block):
            own = slice(start, start + block)
            log_NV = _log_probabilities(hidden_ND[own], weight_VD, bias_V)
            loss_N[own] = block_loss(own, log_NV, differentiable)
            if gradient_ND is not None:
                gradient_ND[own] = log_NV.to(weight_VD.dtype) @ weight_VD
        if gradient_ND is not None:
            ctx.save_for_backward(gradient_ND)
        return loss_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream_N: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient_ND,) = ctx.saved_tensors
        return gradient_ND * upstream_N[:, None].to(gradient_ND.dtype), None, None, None, None


def _log_probabilities(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None) -> torch.Tensor:
    """Of every token of the vocabulary, ``[N, V]``, float32 at least."""
    logits_NV = F.linear(hidden_ND, weight_VD, bias_V)
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return logits_NV.sub_(logits_NV.logsumexp(dim=1, keepdim=True))


def frozen_head_cross_entropy(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    block: int = BLOCK_TOKENS,
) -> torch.Tensor:
    """Negative log-likelihood (nats) of every label under ``softmax(hidden · weightᵀ + bias)``, float32 ``[N]``.

    Gradients reach ``hidden_ND`` alone. Logits and the loss are float32 whatever the dtype of the operands, float64
    for float64 ones.

    Args:
        hidden_ND: last hidden states.
        weight_VD: the head's frozen table.
        labels_N: token ids.
        bias_V: the head's bias, if it has one.
        block: tokens whose logits are in memory at once.
    """

    def block_loss(own: slice, log_NV: torch.Tensor, differentiable: bool) -> torch.Tensor:
        labels = labels_N[own]
        loss_N = -log_NV.gather(1, labels[:, None]).squeeze(1)
        if differentiable:
            # softmax − one-hot; each row has one label, so an indexed assignment is deterministic on CUDA too
            log_NV.exp_()[torch.arange(len(labels), device=labels.device), labels] -= 1
        return loss_N

    loss_N: torch.Tensor = _FrozenHeadLoss.apply(hidden_ND, weight_VD, bias_V, block_loss, block)
    return loss_N


def frozen_head_divergence(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    text_ND: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    block: int = BLOCK_TOKENS,
) -> torch.Tensor:
    """KL(text ‖ hidden) in nats between the next-token distributions of two hidden states per token, float32 ``[N]``.

    Each distribution is ``softmax(hidden · weightᵀ + bias)``; the loss of distillation at temperature 1 (Hinton,
    Vinyals and Dean 2015). Gradients reach ``hidden_ND`` alone. Precision and memory are those of
    :func:`frozen_head_cross_entropy`, with the logits of both in a block.

    Args:
        hidden_ND: last hidden states of the model that reads rebuilt embeddings.
        weight_VD: the head's frozen table.
        text_ND: last hidden states of the same model on the original embeddings.
        bias_V: the head's bias, if it has one.
        block: tokens whose logits are in memory at once.
    """

    def block_loss(own: slice, log_NV: torch.Tensor, differentiable: bool) -> torch.Tensor:
        text_NV = _log_probabilities(text_ND[own], weight_VD, bias_V)
        chances_NV = text_NV.exp()
        # A token that a bias of -inf rules out has log-probability -inf on both sides.
        loss_N = torch.where(chances_NV > 0, chances_NV * text_NV.sub_(log_NV), 0.0).sum(dim=1)
        if differentiable:
            log_NV.exp_().sub_(chances_NV)
        return loss_N

    loss_N: torch.Tensor = _FrozenHeadLoss.apply(hidden_ND, weight_VD, bias_V, block_loss, block)
    return loss_N
