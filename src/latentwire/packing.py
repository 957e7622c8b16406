"""Batches of prompts that are read without generating: several prompts in a row if that saves reading padding.

Prompts that stand in one row see themselves alone, and count their positions from zero, so what is read is what each
prompt is alone.

Shape suffixes: B rows, L length, N predicted tokens, D embedding dimensions.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from latentwire.abilities import require_served
from latentwire.attention import attends_by_position

IGNORED = -100


@dataclass(frozen=True)
class Layout:
    """How prompts are laid into rows.

    Attributes:
        packs: whether a row may hold several prompts.
        one_row: whether all prompts stand in one row; else rows are as long as the longest prompt.
    """

    packs: bool = False
    one_row: bool = False

    @classmethod
    def of(cls, model: Any) -> Self:
        """For a model, on its device.

        On the CPU, attention costs the square of a row's length; on a GPU it sees what belongs together alone.
        """
        packs = attends_by_position(model)
        return cls(packs, one_row=packs and next(model.parameters()).device.type == "cuda")

    def rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which prompts of these lengths stand in each row: first fit, the longest first, if that saves a row."""
        width = sum(lengths) if self.one_row else max(lengths)
        rows: list[list[int]] = []
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            fitting = (row for row in rows if sum(lengths[own] for own in row) + lengths[index] <= width)
            if (row := next(fitting, None)) is None:
                rows.append([index])
            else:
                row.append(index)
        return rows if self.packs and len(rows) < len(lengths) else [[index] for index in range(len(lengths))]


@dataclass(frozen=True)
class PromptBatch:
    """Prompts in rows, padded on the right; int64 ``[B, L]`` each.

    Attributes:
        ids_BL: token ids.
        owner_BL: which prompt a token belongs to; −1 on padding.
        positions_BL: of each token in its prompt; 0 on padding.
        labels_BL: the token ids; −100 where nothing is predicted: on padding, on template tokens, and on the first
            token of each prompt.
        packed: whether a row holds several prompts.
    """

    ids_BL: torch.Tensor
    owner_BL: torch.Tensor
    positions_BL: torch.Tensor
    labels_BL: torch.Tensor
    packed: bool

    @property
    def mask_BL(self) -> torch.Tensor:
        """1 on tokens, 0 on padding, int64."""
        return (self.owner_BL >= 0).long()

    @property
    def boundaries(self) -> dict[str, Any]:
        """Where prompts that fill one row begin and end, under the names by which transformers passes them on."""
        starts = (self.positions_BL[0] == 0).nonzero().flatten()
        ends = torch.cat([starts, torch.tensor([self.ids_BL.shape[1]])]).int()
        longest = int(self.positions_BL.max()) + 1
        return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}

    @property
    def predicted_N(self) -> torch.Tensor:
        """Indices of the predicted tokens in the flattened rows, int64 ``[N]``."""
        return (self.labels_BL.flatten() != IGNORED).nonzero().flatten()


def prompt_batch(
    sequences: Sequence[np.ndarray], label_masks: Sequence[np.ndarray], layout: Layout | None = None
) -> PromptBatch:
    """Prompts as one batch; a label is the prompt's own token.

    Args:
        sequences: token ids of each prompt.
        label_masks: which tokens of each are predicted.
        layout: how they are laid into rows; by default one prompt per row.
    """
    layout = layout or Layout()
    lengths = [len(ids) for ids in sequences]
    rows = layout.rows(lengths)
    longest = max(sum(lengths[index] for index in row) for row in rows)
    ids_BL = torch.zeros(len(rows), longest, dtype=torch.int64)
    positions_BL = torch.zeros_like(ids_BL)
    owner_BL, labels_BL = torch.full_like(ids_BL, -1), torch.full_like(ids_BL, IGNORED)
    for row, members in enumerate(rows):
        start = 0
        for index in members:
            own = slice(start, start := start + lengths[index])
            tokens = torch.from_numpy(np.asarray(sequences[index], dtype=np.int64))
            ids_BL[row, own], owner_BL[row, own] = tokens, index
            positions_BL[row, own] = torch.arange(len(tokens))
            predicted = torch.from_numpy(np.asarray(label_masks[index], dtype=bool)).clone()
            predicted[0] = False  # nothing stands before it
            labels_BL[row, own] = tokens.masked_fill(~predicted, IGNORED)
    return PromptBatch(ids_BL, owner_BL, positions_BL, labels_BL, packed=len(rows) < len(sequences))


def block_mask(owner_BL: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, ``[B, 1, L, L]``: 0 where a token sees an earlier one of its own prompt.

    Padding sees the padding before it, so that no row of the mask is empty.
    """
    same_BLL = owner_BL[:, :, None] == owner_BL[:, None, :]
    place_L = torch.arange(owner_BL.shape[1], device=owner_BL.device)
    seen_BLL = same_BLL & (place_L[:, None] >= place_L)
    return torch.zeros(seen_BLL.shape, dtype=dtype, device=owner_BL.device).masked_fill_(~seen_BLL, float("-inf"))[
        :, None
    ]


class PackedDecoder:
    """A frozen model's decoder, reading batches of prompts that may stand in one row.

    Args:
        model: a Hugging Face causal language model.

    Raises:
        InputError: the model's configuration or its class says that it can't serve.
    """

    def __init__(self, model: Any) -> None:
        require_served(model)
        self.decoder = model.base_model
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.layout = Layout.of(model)
        taken = inspect.signature(self.decoder.forward).parameters.values()
        self._passes_on = any(own.kind is inspect.Parameter.VAR_KEYWORD for own in taken)

    def hidden(self, inputs_BLD: torch.Tensor, batch: PromptBatch) -> torch.Tensor:
        """The hidden states ``[N, D]`` from which the batch's labels are predicted, each at the place before it."""
        read = self.decoder(inputs_embeds=inputs_BLD.to(self.dtype), use_cache=False, **self._attended(batch))
        return read.last_hidden_state.flatten(0, 1).index_select(0, self.on_device(batch.predicted_N - 1))

    def _attended(self, batch: PromptBatch) -> dict[str, Any]:
        """What says which tokens of a row see each other."""
        if not batch.packed:
            return {"attention_mask": self.on_device(batch.mask_BL)}
        told = {
            "attention_mask": block_mask(self.on_device(batch.owner_BL), self.dtype),
            "position_ids": self.on_device(batch.positions_BL),
        }
        if self.layout.one_row and self._passes_on:  # for kernels that need no mask
            told |= {
                name: self.on_device(value) if isinstance(value, torch.Tensor) else value
                for name, value in batch.boundaries.items()
            }
        return told

    def on_device(self, own: torch.Tensor) -> torch.Tensor:
        """A tensor of the host where the model is, without waiting for the device."""
        return own.to(self.device, non_blocking=True)
