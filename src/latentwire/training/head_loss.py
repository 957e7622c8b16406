"""Cross-entropy through a frozen output head, never with more logits in memory than a block of tokens has.

Shape suffixes: N predicted tokens, D embedding dimensions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

BLOCK_TOKENS = 512


class _FrozenHeadCrossEntropy(torch.autograd.Function):
    """The gradient of the hidden states is made beside the loss, so that no logits are kept or computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        block: int,
    ) -> torch.Tensor:
        differentiable = ctx.needs_input_grad[0]
        loss_N = torch.empty(len(labels_N), dtype=torch.float32, device=hidden_ND.device)
        gradient_ND = torch.empty_like(hidden_ND) if differentiable else None
        for start in range(0, len(labels_N), block):
            own = slice(start, start + block)
            labels = labels_N[own, None]
            logits_NV = F.linear(hidden_ND[own], weight_VD, bias_V).float()
            log_partition_N = logits_NV.logsumexp(dim=1)
            loss_N[own] = log_partition_N - logits_NV.gather(1, labels).squeeze(1)
            if gradient_ND is not None:
                # softmax − one-hot; each row has one label, so an indexed assignment is deterministic on CUDA too
                error_NV = logits_NV.sub_(log_partition_N[:, None]).exp_()
                error_NV[torch.arange(len(labels), device=labels.device), labels_N[own]] -= 1
                gradient_ND[own] = error_NV.to(weight_VD.dtype) @ weight_VD
        if gradient_ND is not None:
            ctx.save_for_backward(gradient_ND)
        return loss_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream_N: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient_ND,) = ctx.saved_tensors
        return gradient_ND * upstream_N[:, None].to(gradient_ND.dtype), None, None, None, None


def frozen_head_cross_entropy(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    block: int = BLOCK_TOKENS,
) -> torch.Tensor:
    """Negative log-likelihood (nats) of every label under ``softmax(hidden · weightᵀ + bias)``, float32 ``[N]``.

    Gradients reach ``hidden_ND`` alone. Logits and the loss are float32 whatever the dtype of the operands.

    Args:
        hidden_ND: last hidden states.
        weight_VD: the head's frozen table.
        labels_N: token ids.
        bias_V: the head's bias, if it has one.
        block: tokens whose logits are in memory at once.
    """
    return _FrozenHeadCrossEntropy.apply(hidden_ND, weight_VD, bias_V, labels_N, block)
