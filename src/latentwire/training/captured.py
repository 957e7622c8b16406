"""A frozen model's pass forward and pass back as CUDA graphs, one pair per shape.

A pass launches thousands of kernels; on a fast GPU launching them takes longer than computing them.

Shape suffixes: B rows, L length, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# A graph keeps the memory of its pass; longer rows are rare and read without one.
CAPTURED_TOKENS = 3072


class CapturedPasses:
    """``read``, replayed where gradients on a GPU are asked for.

    Graphs share one pool of memory: each is replayed forward and back before another one is.

    Args:
        read: hidden states of inputs ``[B, L, D]`` and of tensors without gradient that belong to them; waits for
            nothing on the host.
    """

    def __init__(self, read: Callable[..., torch.Tensor]) -> None:
        self.read = read
        self.passes: dict[tuple[int, ...], Callable[..., torch.Tensor]] = {}
        self.pool: Any = None

    def __call__(self, inputs_BLD: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        """``read`` of these tensors."""
        shape = tuple(inputs_BLD.shape)
        if not self._captures(inputs_BLD):
            return self.read(inputs_BLD, *given)
        if shape not in self.passes:
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            samples = (inputs_BLD.detach().clone().requires_grad_(), *(own.clone() for own in given))
            self.passes[shape] = torch.cuda.make_graphed_callables(self.read, samples, pool=self.pool)
        return self.passes[shape](inputs_BLD, *given)

    @staticmethod
    def _captures(inputs_BLD: torch.Tensor) -> bool:
        rows, length, _ = inputs_BLD.shape
        differentiable = inputs_BLD.requires_grad and torch.is_grad_enabled()
        return inputs_BLD.device.type == "cuda" and differentiable and rows * length <= CAPTURED_TOKENS
