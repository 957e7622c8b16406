"""Greedy decoding in steps of fixed shapes, which a CUDA graph holds.

On a GPU, a decoding step lasts as long as Python needs to launch its kernels: several times what they compute. Here
keys and values have reserved places, and everything that a step changes is in tensors that stay where they are. So the
host waits for nothing within a step, and a step is captured once per shape and replayed.

Shape suffixes: B batch, L prompt tokens with padding, P places for keys and values, N new tokens, H heads, E numbers
per head, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

# Fewer shapes to capture, for a few more masked places to read.
PLACES_MULTIPLE = 64
# New tokens between two questions of the host whether all answers have ended.
ASK_EVERY = 4
# Eager steps before a capture, in which libraries make their plans.
WARM_UP_STEPS = 2


class ReservedLayer(DynamicLayer):
    """One layer's keys and values, ``[B, H, P, E]``, in memory that all batches share.

    Args:
        at: where a decoding step writes, int64 ``[1]``, on the device.
    """

    def __init__(self, at: torch.Tensor) -> None:
        super().__init__()
        self.at = at
        self.memory: list[torch.Tensor] = []
        self.places = self.capacity = self.read = 0
        self.decoding = False

    def begin(self, places: int, capacity: int) -> None:
        """Forget the batch before; the next one has ``places``, and all rows of any batch ``capacity`` at most."""
        if capacity > self.capacity:
            self.memory.clear()
        self.places, self.capacity, self.read = places, capacity, 0
        self.is_initialized = self.decoding = False

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what is new: behind what is there while the prompt is read, at ``at`` in a decoding step.

        Returns:
            The prompt's keys and values so far; in a decoding step those of all places, masked ones included.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (self._reserved(*own) for own in enumerate((key_states, value_states)))
        if self.decoding:
            self.keys.index_copy_(2, self.at, key_states)
            self.values.index_copy_(2, self.at, value_states)
            return self.keys, self.values
        begin, self.read = self.read, self.read + key_states.shape[-2]
        self.keys[:, :, begin : self.read] = key_states
        self.values[:, :, begin : self.read] = value_states
        return self.keys[:, :, : self.read], self.values[:, :, : self.read]

    def get_seq_length(self) -> int:
        """Prompt tokens that were read."""
        return self.read

    def _reserved(self, number: int, states_BHLE: torch.Tensor) -> torch.Tensor:
        batch, heads, _, width = states_BHLE.shape
        if len(self.memory) <= number:
            # Masked places are multiplied by zero, which only finite numbers survive.
            self.memory.append(states_BHLE.new_zeros(self.capacity * heads * width))
        used = self.memory[number][: batch * heads * self.places * width]
        return used.view(batch, heads, self.places, width)


class _Steps:
    """What decoding steps of one shape change, and the step.

    Args:
        batch: B.
        places: P.
        most: the most new tokens.
        device: the model's.
        dtype: the model's; the mask is what is added to attention scores.
    """

    def __init__(self, batch: int, places: int, most: int, device: torch.device, dtype: torch.dtype) -> None:
        self.tokens_B = torch.zeros(batch, dtype=torch.int64, device=device)
        self.positions_B = torch.zeros_like(self.tokens_B)
        self.ended_B = torch.zeros(batch, dtype=torch.bool, device=device)
        self.mask_BP = torch.zeros(batch, 1, 1, places, dtype=dtype, device=device)
        self.new_BN = torch.zeros(batch, most, dtype=torch.int64, device=device)
        self.count = torch.zeros(1, dtype=torch.int64, device=device)
        self.not_finite = torch.zeros((), dtype=torch.bool, device=device)
        self.graph: Any = None

    def start(self, mask_BL: torch.Tensor) -> None:
        """Behind a prompt that was read under ``mask_BL``: nothing is generated yet."""
        length = mask_BL.shape[1]
        self.mask_BP.fill_(float("-inf"))
        self.mask_BP[:, 0, 0, :length].masked_fill_(mask_BL.bool(), 0.0)
        self.positions_B.copy_(mask_BL.sum(dim=1) - 1)
        for own in (self.ended_B, self.count, self.not_finite):
            own.zero_()

    def choose(self, logits_BV: torch.Tensor, stops: torch.Tensor, pad: int) -> None:
        """Append the most likely token of every row; padding behind the end of an answer."""
        tokens_B = logits_BV.float().argmax(dim=-1)
        # A model may rule tokens out with -inf, so the largest of each row counts; it is one that is not a number.
        largest_B = logits_BV.gather(1, tokens_B[:, None]).squeeze(1)
        self.not_finite.logical_or_((~self.ended_B & ~largest_B.isfinite()).any())
        self.tokens_B.copy_(torch.where(self.ended_B, pad, tokens_B))
        self.new_BN.index_copy_(1, self.count, self.tokens_B[:, None])
        self.ended_B.logical_or_(torch.isin(self.tokens_B, stops))
        self.positions_B.add_(1)
        self.count.add_(1)


def has_fixed_steps(model: Any) -> bool:
    """Whether a model that shares prefixes can be asked for the logits of its last position alone."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


class FixedSteps:
    """Greedy decoding of one model.

    Args:
        model: a frozen causal language model, which is told positions and whose layers see all places.
        stops: the tokens of which each ends an answer.
        pad: the token that stands behind it.
        max_new_tokens: one cap for every answer.
    """

    def __init__(self, model: Any, stops: Sequence[int], pad: int, max_new_tokens: int) -> None:
        weight = next(model.parameters())
        self.model, self.pad, self.most = model, pad, max_new_tokens
        self.device, self.dtype = weight.device, weight.dtype
        self.stops = torch.tensor(list(stops), dtype=torch.int64, device=self.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
        # An index, since a slice is not contiguous, and the head's table would be read once per prompt.
        self.last = torch.tensor([-1], device=self.device)
        layers = len(DynamicCache(config=model.config).layers)
        self.cache = Cache(layers=[ReservedLayer(self.at) for _ in range(layers)])
        self.capacity = 0
        self.steps: dict[tuple[int, int], _Steps] = {}

    def begin(self, batch: int, length: int) -> Cache:
        """The empty cache for a batch of prompts of ``length`` tokens, padding included."""
        places = -(-(length + self.most) // PLACES_MULTIPLE) * PLACES_MULTIPLE
        if batch * places > self.capacity:
            self.steps.clear()  # their graphs write to the memory that is given back
            self.capacity = batch * places
        for layer in self.cache.layers:
            layer.begin(places, self.capacity)
        return self.cache

    def answers(
        self,
        given: dict[str, torch.Tensor],
        positions_BL: torch.Tensor,
        ended: Callable[[list[int]], bool],
    ) -> list[list[int]]:
        """The new tokens of every prompt, at least up to its end.

        Args:
            given: what is left to read of the prompts, ``input_ids`` or ``inputs_embeds``, and the ``attention_mask``
                of the whole prompts, int64 ``[B, L]``, 0 on padding.
            positions_BL: of what is left to read.
            ended: whether an answer that begins with these tokens has ended.

        Raises:
            FloatingPointError: the largest logit of an answer that has not ended is not finite.
        """
        logits_BV = self.model(
            **given,
            position_ids=positions_BL,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=self.last,
        ).logits[:, -1]
        mask_BL, layers = given["attention_mask"], cast("list[ReservedLayer]", self.cache.layers)
        batch, length, places = *mask_BL.shape, layers[0].places
        for layer in layers:
            layer.decoding = True
        steps = self.steps.setdefault((batch, places), _Steps(batch, places, self.most, self.device, self.dtype))
        self.at.fill_(length)
        with _indexed_copies_as_they_are():
            steps.start(mask_BL)
            steps.choose(logits_BV, self.stops, self.pad)
            for count in range(1, self.most):
                if count % ASK_EVERY == 0 and all(map(ended, steps.new_BN[:, :count].tolist())):
                    break
                self._advance(steps, count)
        if bool(steps.not_finite):
            raise FloatingPointError
        return steps.new_BN[:, : int(steps.count)].tolist()

    def _advance(self, steps: _Steps, count: int) -> None:
        """One step more: replayed if its shape was captured, which it is after its warm-up."""
        if steps.graph is not None:
            steps.graph.replay()
            return
        if self.device.type == "cuda" and count > WARM_UP_STEPS:
            # Graphs of one pool share their memory: they run one after another.
            pool = next((own.graph.pool() for own in self.steps.values() if own.graph is not None), None)
            steps.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(steps.graph, pool=pool):  # runs nothing
                self._step(steps)
            steps.graph.replay()
            return
        self._step(steps)

    def _step(self, steps: _Steps) -> None:
        steps.mask_BP.index_fill_(3, self.at, 0.0)
        logits_BV = self.model(
            input_ids=steps.tokens_B[:, None],
            attention_mask=steps.mask_BP,
            position_ids=steps.positions_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        steps.choose(logits_BV, self.stops, self.pad)
        self.at.add_(1)


@contextmanager
def _indexed_copies_as_they_are() -> Iterator[None]:
    """Without torch's detour in deterministic mode, which sorts the indices: here each is there once."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
