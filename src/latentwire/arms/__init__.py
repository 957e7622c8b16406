"""What the model reads in place of the prompt's embeddings, arm by arm.

Every arm is position-wise, so that a prompt's embeddings are rows gathered from its rebuilt table. A codec's rows come
from the codec alone; references, floors and bounds may use the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.arms.bounds import snap, snap_d
from latentwire.arms_table import arm_row
from latentwire.codecs import Codec, LinearCodec
from latentwire.compression.counts import mean_embedding


@dataclass(frozen=True)
class ArmInputs:
    """What an arm may use.

    Attributes:
        table_VD: the model's embedding table, in its stored dtype.
        counts_V: token counts of the PCA split, int64.
        codec: its codec, or of a bound the linear codec that it decodes; None for arms without one.
    """

    table_VD: torch.Tensor
    counts_V: torch.Tensor
    codec: Codec | None = None


def rebuilt_rows(arm: str, inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor | None:
    """Rebuilt embeddings ``[U, D]`` of token ids ``[U]``, or None for the arms that read token ids.

    Raises:
        KeyError: there is no such arm.
    """
    if arm in ("text", "question"):
        return None
    if arm == "identity":
        return inputs.table_VD[ids_U]
    if arm == "mean":
        return mean_embedding(inputs.table_VD, inputs.counts_V).float().expand(len(ids_U), -1)
    if arm in ("snap", "snap_d"):
        assert isinstance(inputs.codec, LinearCodec)
        return (snap if arm == "snap" else snap_d)(inputs.table_VD, inputs.codec, ids_U)
    if arm_row(arm).kind != "codec" or inputs.codec is None:
        raise KeyError(f"no rows of the arm {arm!r}")
    return inputs.codec.decode(ids_U)
