"""What keeps a training step within a GPU's memory: losses in parts, and activations that are computed again.

Shape suffixes: U unique tokens, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from latentwire.device import in_parts_that_fit
from latentwire.errors import InputError
from latentwire.processes import Processes

# The plan's batch of the longest prompts, with which Phase 2 of an 8B model takes 54 GiB (benchmarks/gpu.md).
MICRO_BATCH_TOKENS = 2**13
# What some of the prompts add to a loss, given the rows that they are made of and their indices.
Share = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
# Indices of prompts that are read at once.
Batches = Sequence[Sequence[int]]
T = TypeVar("T")


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, rows_UD: torch.Tensor, value: torch.Tensor, gradient_UD: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient_UD)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient_UD,) = ctx.saved_tensors
        return above[0] * gradient_UD, None, None


class TokenBudget:
    """How many tokens the frozen model reads at once.

    Attributes:
        parts: by which :data:`MICRO_BATCH_TOKENS` are divided; doubled, for the rest of the run, if memory does not
            suffice.
    """

    def __init__(self) -> None:
        self.parts = 1

    def cut(self, batches: Batches, lengths: Sequence[int], work: Callable[[Batches], T]) -> T:
        """What ``work`` makes of batches of prompts, each cut into :func:`micro_batches`.

        Args:
            batches: indices of prompts.
            lengths: of all prompts, in tokens.
            work: takes micro-batches; called again, with smaller ones, if memory does not suffice.

        Raises:
            torch.OutOfMemoryError: even one prompt is too much.
        """
        own = [[lengths[prompt] for prompt in batch] for batch in batches]

        def attempt(parts: int) -> T:
            budget = MICRO_BATCH_TOKENS // parts
            return work([part for pair in zip(batches, own, strict=True) for part in micro_batches(*pair, budget)])

        found, self.parts = in_parts_that_fit(
            attempt,
            self.parts,
            -(
                -MICRO_BATCH_TOKENS // min((min(one) for one in own if one), default=1)
            ),  # in which every prompt is alone
            lambda parts: f"micro-batches have at most {MICRO_BATCH_TOKENS // parts} tokens from now on",
        )
        return found


class LossInParts:
    """A sum over prompts, as a differentiable function of the rows that they are made of.

    Its gradient is made as it is computed: of the frozen model's activations, one micro-batch's are held at a time.

    Args:
        processes: which compute a share each.
        lengths: of the prompts, in tokens.

    Attributes:
        budget: of a process.
    """

    def __init__(self, processes: Processes, lengths: Sequence[int]) -> None:
        self._processes, self._lengths = processes, lengths
        self.budget = TokenBudget()

    def __call__(self, rows_UD: torch.Tensor, prompts: Sequence[int], loss_of: Share) -> torch.Tensor:
        """The loss.

        Args:
            rows_UD: what gradients reach.
            prompts: their indices.
            loss_of: what some of the prompts add to it.

        Raises:
            torch.OutOfMemoryError: even one prompt is too much.
        """
        share = [self._processes.share(prompts)]
        found = self.budget.cut(share, self._lengths, lambda batches: _sum(rows_UD.detach(), batches, loss_of))
        self._processes.add(*found)
        result: torch.Tensor = _WithGradient.apply(rows_UD, *found)
        return result


def micro_batches(prompts: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Prompts in their order, cut where their tokens would be more than the budget; a longer prompt is alone.

    Args:
        prompts: their indices.
        lengths: of each, in tokens.
        budget: tokens of a micro-batch.
    """
    batches: list[list[int]] = []
    tokens = 0
    for prompt, length in zip(prompts, lengths, strict=True):
        if not batches or tokens + length > budget:
            batches.append([])
            tokens = 0
        batches[-1].append(prompt)
        tokens += length
    return batches


def _sum(rows_UD: torch.Tensor, batches: Batches, loss_of: Share) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a process's micro-batches, and its gradient with respect to the rows."""
    value, gradient_UD = rows_UD.new_zeros(()), torch.zeros_like(rows_UD)
    rows_UD.requires_grad_()
    for part in batches:
        with torch.enable_grad():
            loss = loss_of(rows_UD, part)
        value += loss.detach()
        gradient_UD += torch.autograd.grad(loss, rows_UD)[0]
    return value, gradient_UD


def checkpoint_activations(model: Any) -> None:
    """Keep each layer's input alone for the backward pass, which computes the rest again.

    One more forward pass per step: as frozen weights need no gradient, up to half more arithmetic. Its time on a GPU
    was not measured.

    Raises:
        InputError: the model's layers are not known.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"{type(model).__name__} names no layers whose activations could be computed again: set "
            "phase2.activation_checkpointing to false"
        )
    for layer in layers:  # nothing is drawn at random in them
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
