"""Exact nearest rows of a table. Shape suffixes: V table rows, U queries, C candidates, D dimensions."""

from __future__ import annotations

import torch

_BLOCK = 256
_CANDIDATES = 4


def nearest_rows(queries_UD: torch.Tensor, table_VD: torch.Tensor) -> torch.Tensor:
    """Index of the row of ``table_VD`` nearest (Euclidean) to each query, int64 ``[U]``.

    ‖x‖²/2 − q·x in float32 can't tell rows apart that differ in their last bits, so its best few candidates are
    compared by their float64 distances; of equal ones the first is taken.
    """
    table_VD, queries_UD = table_VD.float(), queries_UD.float()
    half_norms_V = table_VD.square().sum(dim=1) / 2
    nearest_U = torch.empty(len(queries_UD), dtype=torch.int64, device=table_VD.device)
    for block_U in torch.arange(len(queries_UD)).split(_BLOCK):
        block_UD = queries_UD[block_U]
        scores_UV = half_norms_V - block_UD @ table_VD.T
        near_UC = scores_UV.topk(min(_CANDIDATES, len(table_VD)), largest=False).indices.sort(dim=1).values
        distances_UC = (table_VD[near_UC].double() - block_UD[:, None].double()).square().sum(dim=2)
        nearest_U[block_U] = near_UC.gather(1, distances_UC.argmin(dim=1, keepdim=True)).squeeze(1)
    return nearest_U
