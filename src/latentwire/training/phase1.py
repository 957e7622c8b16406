"""Phase 1: train the adapter on reconstruction alone. No language model is needed.

A position-wise adapter maps equal tokens to equal embeddings, so the mean squared error over a batch's token
occurrences equals the count-weighted mean over its unique tokens; the loss is computed that way.

Shape suffixes: V table rows, U unique tokens of a batch, D embedding dimensions, K code dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentwire.adapter import Adapter
from latentwire.arms_table import Weighting
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.settings import Phase1
from latentwire.training.loop import (
    Losses,
    batch_at,
    epoch_order,
    planned_steps,
    train_adapter,
)
from latentwire.training.objectives import (
    TokenRows,
    autocast,
    held_out_metrics,
    held_out_types,
    unique_tokens,
    weighted_error,
)

MEASUREMENTS = 10


def vocabulary_share(step: int, per_epoch: int, vocab_size: int, seed: int) -> torch.Tensor:
    """The token ids of a step's share of the vocabulary: every epoch goes through all of it once, in random order."""
    epoch, position = divmod(step, per_epoch)
    return epoch_order(vocab_size, seed, epoch).tensor_split(per_epoch)[position]


def type_weights(counts_V: torch.Tensor, weighting: Weighting, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What an occurrence of each type weighs, and what the type weighs besides in an epoch: both float32 ``[V]``.

    By ``root`` a type that occurs n times weighs √n + 1 in an epoch, with or without occurrences; by ``type`` all of
    them weigh 2, of which those that occur have half from their occurrences.

    Args:
        counts_V: occurrences in an epoch.
        weighting: of the types.
        smoothing: occurrences besides its own.
    """
    besides_V = torch.full((len(counts_V),), smoothing)
    if weighting == "counts":
        return torch.ones(len(counts_V)), besides_V
    often_V = counts_V.clamp_min(1).float()
    if weighting == "root":
        return often_V.rsqrt(), besides_V + 1
    return often_V.reciprocal(), besides_V + 1 + (counts_V == 0)


def train_phase1(
    train: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    table_VD: torch.Tensor,
    codes_VK: torch.Tensor,
    compressor: EmbeddingCompressor,
    settings: Phase1,
    *,
    seed: int,
    recon_weight: float = 1.0,
    weighting: Weighting = "counts",
    device: torch.device,
    checkpoints: Checkpoints,
    diagnostics: Path,
    hidden: int | None = None,
    residual: bool = False,
) -> tuple[Adapter, list[dict[str, Any]]]:
    """Train an adapter on reconstruction.

    Args:
        train: token ids of the training prompts, one array per prompt.
        held_out: token ids of held-out prompts, for the metrics in the log.
        table_VD: the model's embedding table.
        codes_VK: its codes under ``compressor``.
        compressor: fitted on a part of ``train``.
        settings: of the configuration.
        seed: of the data order.
        recon_weight: factor of the loss; it matters only through the gradient's clipping.
        weighting: of the token types.
        device: where to train.
        checkpoints: this run's own.
        diagnostics: the JSONL log to write.
        hidden: the adapter's hidden width; None for D/2.
        residual: the codes are rows already, see :class:`~latentwire.adapter.Adapter`.

    Returns:
        The adapter, and the diagnostics.

    Raises:
        FloatingPointError: the loss is not finite.
        Stopped: the run was told to stop; the state is kept.
    """
    torch.manual_seed(seed)
    adapter = Adapter.from_compressor(compressor, hidden=hidden, residual=residual).to(device)
    held_ids_U, held_counts_U = held_out_types(held_out, len(table_VD))
    whole_vocabulary = settings.smoothing > 0 or weighting != "counts"
    if whole_vocabulary:
        all_ids = torch.arange(len(table_VD))
    else:
        all_ids = torch.unique(torch.cat([unique_tokens(train)[0], held_ids_U]))
    rows = TokenRows(table_VD, codes_VK, compressor, all_ids, device)
    per_epoch = math.ceil(len(train) / settings.batch_size)
    steps = planned_steps(settings.epochs, len(train), settings.batch_size)
    per_occurrence_V, besides_V = type_weights(count_tokens(train, len(table_VD)), weighting, settings.smoothing)

    def loss_at(step: int) -> Losses:
        chosen = batch_at(step, len(train), settings.batch_size, seed)
        ids_U, weights_U = unique_tokens([train[index] for index in chosen.tolist()])
        if weighting != "counts":
            weights_U = weights_U * per_occurrence_V[ids_U]
        if whole_vocabulary:
            share_U = vocabulary_share(step, per_epoch, len(table_VD), seed)
            ids_U = torch.cat([ids_U, share_U])
            weights_U = torch.cat([weights_U, besides_V[share_U]])
        codes_UK, target_UD = rows.of(ids_U)
        with autocast(device):
            predicted_UD = adapter.standardised(codes_UK)
        return {"loss": recon_weight * weighted_error(predicted_UD, target_UD, weights_U)}

    def measure(step: int) -> dict[str, float]:
        metrics = held_out_metrics(adapter, rows, held_ids_U, held_counts_U)
        return metrics

    history = train_adapter(
        adapter,
        loss_at,
        steps=steps,
        steps_per_epoch=per_epoch,
        settings=settings,
        checkpoints=checkpoints,
        measure=measure,
        measure_every=max(1, steps // MEASUREMENTS),
        diagnostics=diagnostics,
        description="phase 1",
    )
    return adapter, history
