"""The reconstruction objective that both phases share, and its metrics on held-out tokens.

Shape suffixes: V table rows, U unique tokens of a batch, D embedding dimensions, K code dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from latentwire.adapter import Rebuilder
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens

BLOCK_ROWS = 8192


class TokenRows:
    """Codes and standardised embeddings of token types, computed once.

    Args:
        table_VD: the embedding table.
        codes_VK: its codes.
        compressor: gives the standardised space.
        ids: the token ids to hold.
        device: where training runs.
    """

    def __init__(
        self,
        table_VD: torch.Tensor,
        codes_VK: torch.Tensor,
        compressor: EmbeddingCompressor,
        ids: torch.Tensor,
        device: torch.device,
    ) -> None:
        self.row_of_V = torch.full((len(table_VD),), -1, dtype=torch.int64)
        self.row_of_V[ids] = torch.arange(len(ids))
        rows = table_VD[ids]
        self.codes = codes_VK[ids].to(device)
        self.rows = rows.to(device)
        self.compressor = compressor.to(device)
        self.device = device

    def of(self, ids_U: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes ``z_UK`` (the table's dtype) and standardised embeddings ``x_UD`` (float32) of token ids."""
        index_U = self._index(ids_U)
        return self.codes[index_U], self.compressor.standardise(self.rows[index_U])

    def original(self, ids_U: torch.Tensor) -> torch.Tensor:
        """The table's own rows ``[U, D]`` of token ids."""
        return self.rows[self._index(ids_U)]

    def _index(self, ids_U: torch.Tensor) -> torch.Tensor:
        return self.row_of_V[ids_U].to(self.device, non_blocking=True)


def unique_tokens(sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sorted unique token ids of a batch of prompts, and how often each occurs: both int64 ``[U]``."""
    ids_U, counts_U = np.unique(np.concatenate(sequences), return_counts=True)
    return torch.from_numpy(ids_U).long(), torch.from_numpy(counts_U).long()


def weighted_error(predicted_UD: torch.Tensor, target_UD: torch.Tensor, weights_U: torch.Tensor) -> torch.Tensor:
    """Σ w ‖x − x̂‖² / (D Σ w) in the standardised space: with counts as weights, the mean over all token occurrences.

    1.0 is what predicting the mean gives on the PCA split.
    """
    error_U = (predicted_UD.float() - target_UD).square().mean(dim=1)
    weights_U = weights_U.to(error_U, non_blocking=True)
    return (error_U * weights_U).sum() / weights_U.sum()


@torch.no_grad()
def held_out_metrics(
    adapter: Rebuilder, rows: TokenRows, ids_U: torch.Tensor, counts_U: torch.Tensor, *, block: int = BLOCK_ROWS
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
