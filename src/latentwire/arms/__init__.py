"""What the model reads in place of the prompt's embeddings, arm by arm.

Every arm is position-wise, so that a prompt's embeddings are rows gathered from its rebuilt table. A codec's rows come
from the codec alone; references, floors and bounds may use the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from latentwire.arms.bounds import snap, snap_d
from latentwire.arms.controls import noise_by_row, noise_over_all, noise_shrunk
from latentwire.arms_table import arm_row
from latentwire.compression.counts import mean_embedding

# Types alone: an evaluation is a user of the families that its arms are of, and of no others.
if TYPE_CHECKING:
    from latentwire.codecs.base import Codec


@dataclass(frozen=True)
class ArmInputs:
    """What an arm may use.

    Attributes:
        table_VD: the model's embedding table, in its stored dtype.
        counts_V: token counts of the PCA split, int64.
        codec: its codec, or of a bound or control the codec that it decodes; None for arms without one.
        draw: of the random error, if it has one.
    """

    table_VD: torch.Tensor
    counts_V: torch.Tensor
    codec: Codec | None = None
    draw: int = 0


def rebuilt_rows(arm: str, inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor | None:
    """Rebuilt embeddings ``[U, D]`` of token ids ``[U]``, or None for the arms that read token ids.

    Raises:
        KeyError: there is no such arm.
        FloatingPointError: a row is not finite; names the arm and the token.
    """
    if not arm_row(arm).rebuilds:
        return None
    rows_UD = _rows(arm, inputs, ids_U)
    require_finite(arm, ids_U, rows_UD)
    return rows_UD


def require_finite(arm: str, ids_U: torch.Tensor, rows_UD: torch.Tensor) -> None:
    """Refuse rebuilt rows of which one is not finite, by the arm and the token."""
    if not (finite_U := rows_UD.isfinite().all(dim=1)).all():
        bad = int(ids_U[~finite_U][0])
        raise FloatingPointError(
            f"arm {arm}: the rebuilt embedding of token {bad} is not finite in {str(rows_UD.dtype).split('.')[1]} "
            f"({int((~finite_U).sum())} of {len(ids_U)} tokens): look at its codec"
        )


def _rows(arm: str, inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    if arm == "identity":
        return inputs.table_VD[ids_U]
    if arm == "mean":
        return mean_embedding(inputs.table_VD, inputs.counts_V).float().expand(len(ids_U), -1)
    if arm in ("snap", "snap_d"):
        assert inputs.codec is not None
        return (snap if arm == "snap" else snap_d)(inputs.table_VD, inputs.codec, ids_U)
    row = arm_row(arm)
    if row.kind not in ("codec", "control") or inputs.codec is None:
        raise KeyError(f"no rows of the arm {arm!r}")
    match row.noise:
        case "rows":
            return noise_by_row(inputs.table_VD, inputs.codec, ids_U, inputs.draw)
        case "shrunk":
            return noise_shrunk(inputs.table_VD, inputs.counts_V, inputs.codec, ids_U, inputs.draw)
        case "equal":
            return noise_over_all(inputs.table_VD, inputs.counts_V, inputs.codec, ids_U, inputs.draw)
    return inputs.codec.decode(ids_U)
