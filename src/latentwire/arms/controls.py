"""Controls: original rows with a random error of a codec's size, to tell apart what makes a codec's error harmful.

``rows``: row by row as large as the codec's own error, in a random direction. ``equal``: the same count-weighted mean
square spread over all rows and dimensions alike, so that the FVU by occurrence is the codec's. What the first costs
over the second is due to which tokens carry the error, what the codec costs over the first is due to its direction.
``shrunk`` keeps the part of the error along the row itself (seen from the mean embedding), by which a codec such as
PCA makes rows smaller, and gives the rest a random direction.

Shape suffixes: V table rows, D embedding dimensions, U token ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentwire.compression.counts import mean_embedding

if TYPE_CHECKING:
    from latentwire.codecs.base import Codec

BLOCK_ROWS = 8192
MOST_ROWS = 2**24  # tokens and a hundred draws within the 32 bits of a seed that torch looks at


def error_norms(table_VD: torch.Tensor, codec: Codec) -> torch.Tensor:
    """The Euclidean norm of the codec's error in each row, float64 ``[V]``."""
    blocks = torch.arange(len(table_VD)).split(BLOCK_ROWS)
    return torch.cat([(codec.decode(ids) - table_VD[ids].float()).double().norm(dim=1) for ids in blocks])


def gaussian_rows(ids_U: torch.Tensor, width: int, draw: int) -> torch.Tensor:
    """Standard Gaussian rows ``[U, D]``, of which a token's row depends on the token and the draw alone."""
    rows = []
    for token in ids_U.tolist():
        generator = torch.Generator().manual_seed(draw * MOST_ROWS + token)
        rows.append(torch.randn(width, generator=generator))
    return torch.stack(rows)


def noise_by_row(table_VD: torch.Tensor, codec: Codec, ids_U: torch.Tensor, draw: int) -> torch.Tensor:
    """Rows with an error as large as the codec's in the same row."""
    noise_UD = gaussian_rows(ids_U, table_VD.shape[1], draw)
    original_UD = table_VD[ids_U].float()
    size_U = (codec.decode(ids_U) - original_UD).norm(dim=1)
    return original_UD + noise_UD * (size_U / noise_UD.norm(dim=1))[:, None]


def noise_shrunk(
    table_VD: torch.Tensor, counts_V: torch.Tensor, codec: Codec, ids_U: torch.Tensor, draw: int
) -> torch.Tensor:
    """Rows whose error has the codec's part along the row, and across it the codec's size in a random direction.

    With x the row's distance from the mean embedding and x̂ the rebuilt one's: c·x + |x̂ − c·x|·n, where
    c = ⟨x̂, x⟩/|x|² and n is a random unit vector across x.
    """
    mean_D = mean_embedding(table_VD, counts_V).float()
    original_UD = table_VD[ids_U].float() - mean_D
    rebuilt_UD = codec.decode(ids_U) - mean_D
    unit_UD = torch.nn.functional.normalize(original_UD, dim=1)
    along_UD = (rebuilt_UD * unit_UD).sum(dim=1, keepdim=True) * unit_UD
    noise_UD = gaussian_rows(ids_U, table_VD.shape[1], draw)
    across_UD = torch.nn.functional.normalize(
        noise_UD - (noise_UD * unit_UD).sum(dim=1, keepdim=True) * unit_UD, dim=1
    )
    return mean_D + along_UD + (rebuilt_UD - along_UD).norm(dim=1, keepdim=True) * across_UD


def noise_over_all(
    table_VD: torch.Tensor, counts_V: torch.Tensor, codec: Codec, ids_U: torch.Tensor, draw: int
) -> torch.Tensor:
    """Rows with an error whose mean square is the codec's, weighted by token counts, and equal for all rows."""
    weights_V = counts_V.double() / counts_V.sum()
    mean_square = (weights_V * error_norms(table_VD, codec).square()).sum() / table_VD.shape[1]
    noise_UD = gaussian_rows(ids_U, table_VD.shape[1], draw)
    return table_VD[ids_U].float() + noise_UD * float(mean_square.sqrt())
