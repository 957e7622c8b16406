"""A preallocated KV cache.

The library's own cache grows by concatenation: every new token copies all that stand before it.

Shape suffixes: B batch, H heads, L places in the sequence, E numbers a head.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values, both ``[B, H, L, E]``: the used parts of two preallocated tensors.

    Args:
        places: the most that L becomes.
    """

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places
        self.used = 0
        self.reserved: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what is new behind what is there.

        Returns:
            All keys and values so far.
        """
        if self.reserved is None:
            self.lazy_initialization(key_states, value_states)
            self.reserved = (self._room(key_states), self._room(value_states))
        begin, self.used = self.used, self.used + key_states.shape[-2]
        for room_BHLE, states_BHLE in zip(self.reserved, (key_states, value_states), strict=True):
            room_BHLE[:, :, begin : self.used] = states_BHLE
        self.keys, self.values = (room_BHLE[:, :, : self.used] for room_BHLE in self.reserved)
        return self.keys, self.values

    def _room(self, states_BHLE: torch.Tensor) -> torch.Tensor:
        batch, heads, _, numbers = states_BHLE.shape
        return states_BHLE.new_empty(batch, heads, self.places, numbers)


def preallocated_cache(places: int) -> Cache:
    """An empty cache of sequences of at most ``places`` tokens, for a model whose layers all see all of them."""
    return Cache(layer_class_to_replicate=partial(PreallocatedLayer, places))
