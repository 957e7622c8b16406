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
import torch.nn.functional as F

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.settings import Phase1
from latentwire.stopping import StopRequest
from latentwire.training.checkpoint import Checkpoints
from latentwire.training.loop import (
    Losses,
    batch_at,
    epoch_order,
    planned_steps,
    train_adapter,
)

MEASUREMENTS = 10
BLOCK_ROWS = 8192


class TokenRows:
    """Codes and standardised embeddings of token types, computed once.

    Args:
        table_VD: the embedding table.
        compressor: gives the codes and the standardised space.
        ids: the token ids to hold.
        device: where training runs.
    """

    def __init__(
        self, table_VD: torch.Tensor, compressor: EmbeddingCompressor, ids: torch.Tensor, device: torch.device
    ) -> None:
        self.row_of_V = torch.full((len(table_VD),), -1, dtype=torch.int64)
        self.row_of_V[ids] = torch.arange(len(ids))
        rows = table_VD[ids]
        self.codes = compressor.codes(table_VD)[ids].to(device)
        self.rows = rows.to(device)
        self.compressor = compressor
        self.device = device

    def of(self, ids_U: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes ``z_UK`` (the table's dtype) and standardised embeddings ``x_UD`` (float32) of token ids."""
        index_U = self.row_of_V[ids_U].to(self.device)
        return self.codes[index_U], self.compressor.standardise(self.rows[index_U])


def unique_tokens(sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sorted unique token ids of a batch of prompts, and how often each occurs: both int64 ``[U]``."""
    ids_U, counts_U = np.unique(np.concatenate(sequences), return_counts=True)
    return torch.from_numpy(ids_U).long(), torch.from_numpy(counts_U).long()


def vocabulary_share(step: int, per_epoch: int, vocab_size: int, seed: int) -> torch.Tensor:
    """The token ids of a step's share of the vocabulary: every epoch goes through all of it once, in random order."""
    epoch, position = divmod(step, per_epoch)
    return epoch_order(vocab_size, seed, epoch).tensor_split(per_epoch)[position]


def weighted_error(predicted_UD: torch.Tensor, target_UD: torch.Tensor, weights_U: torch.Tensor) -> torch.Tensor:
    """Σ w ‖x − x̂‖² / (D Σ w) in the standardised space: with counts as weights, the mean over all token occurrences.

    1.0 is what predicting the mean gives on the PCA split.
    """
    error_U = (predicted_UD.float() - target_UD).square().mean(dim=1)
    weights_U = weights_U.to(error_U)
    return (error_U * weights_U).sum() / weights_U.sum()


@torch.no_grad()
def held_out_metrics(
    adapter: Adapter, rows: TokenRows, ids_U: torch.Tensor, counts_U: torch.Tensor, *, block: int = BLOCK_ROWS
) -> dict[str, float]:
    """Count-weighted reconstruction metrics over held-out token occurrences.

    Returns:
        ``recon_mse`` (raw units, a dimension), ``recon_fvu`` (around the compressor's mean), ``recon_cosine_sim`` and
        ``recon_rel_error``, each averaged over occurrences.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    deviation, width = 0.0, rows.rows.shape[1]
    for part in torch.arange(len(ids_U)).split(block):
        codes, target = rows.of(ids_U[part])
        weights = counts_U[part].to(rows.device, torch.float64)
        standardised = adapter.standardised(codes).float()
        original = adapter.mean_D + adapter.scale * target
        rebuilt = adapter.mean_D + adapter.scale * standardised
        squared = (target - standardised).double().square().sum(dim=1)
        relative = (original - rebuilt).norm(dim=1).double() / original.norm(dim=1).double().clamp_min(1e-30)
        cosine = F.cosine_similarity(original, rebuilt, dim=1).double()
        deviation += float((target.double().square().sum(dim=1) * weights).sum())
        sums += torch.stack([(v * weights).sum() for v in (squared, cosine, relative, torch.ones_like(cosine))]).cpu()
    squared_sum, cosine_sum, relative_sum, tokens = sums.tolist()
    return {
        "recon_mse": squared_sum * float(adapter.scale) ** 2 / (width * tokens),
        "recon_fvu": squared_sum / deviation,
        "recon_cosine_sim": cosine_sum / tokens,
        "recon_rel_error": relative_sum / tokens,
    }


def held_out_types(held_out: Sequence[np.ndarray], vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids that occur in held-out prompts, and their counts."""
    counts_V = count_tokens(held_out, vocab_size)
    ids_U = counts_V.nonzero().flatten()
    return ids_U, counts_V[ids_U]


def autocast(device: torch.device) -> torch.autocast:
    """bf16 mixed precision on CUDA, full precision on the CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def train_phase1(
    train: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    table_VD: torch.Tensor,
    compressor: EmbeddingCompressor,
    settings: Phase1,
    *,
    seed: int,
    recon_weight: float = 1.0,
    device: torch.device,
    state: Path,
    diagnostics: Path,
    hidden: int | None = None,
    stop: StopRequest | None = None,
) -> tuple[Adapter, list[dict[str, Any]]]:
    """Train an adapter on reconstruction.

    Args:
        train: token ids of the training prompts, one array a prompt.
        held_out: token ids of held-out prompts, for the metrics in the log.
        table_VD: the model's embedding table.
        compressor: fitted on a part of ``train``.
        settings: of the configuration.
        seed: of the data order.
        recon_weight: factor of the loss; it matters only through the gradient's clipping.
        device: where to train.
        state: this run's own folder for checkpoints.
        diagnostics: the JSONL log to write.
        hidden: the adapter's hidden width; None for D/2.
        stop: asked before every step.

    Returns:
        The adapter, and the diagnostics.

    Raises:
        FloatingPointError: the loss is not finite.
        Stopped: ``stop`` said so; the state is kept.
    """
    torch.manual_seed(seed)
    adapter = Adapter.from_compressor(compressor, hidden=hidden).to(device)
    held_ids_U, held_counts_U = held_out_types(held_out, len(table_VD))
    if settings.smoothing:
        all_ids = torch.arange(len(table_VD))
    else:
        all_ids = torch.unique(torch.cat([unique_tokens(train)[0], held_ids_U]))
    rows = TokenRows(table_VD, compressor, all_ids, device)
    per_epoch = math.ceil(len(train) / settings.batch_size)
    steps = planned_steps(settings.epochs, len(train), settings.batch_size)

    def loss_at(step: int) -> Losses:
        chosen = batch_at(step, len(train), settings.batch_size, seed)
        ids_U, weights_U = unique_tokens([train[index] for index in chosen.tolist()])
        if settings.smoothing:
            share_U = vocabulary_share(step, per_epoch, len(table_VD), seed)
            ids_U = torch.cat([ids_U, share_U])
            weights_U = torch.cat([weights_U, torch.full((len(share_U),), settings.smoothing)])
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
        checkpoints=Checkpoints(state),
        measure=measure,
        measure_every=max(1, steps // MEASUREMENTS),
        diagnostics=diagnostics,
        description="phase 1",
        stop=stop,
    )
    return adapter, history
