"""The arms: ways of producing the prompt's embeddings, one small module a family.

An arm is a function from an :class:`ArmInputs` and token ids to rebuilt embeddings; every arm is position-wise, so
that a prompt's embeddings are rows gathered from its rebuilt table. Modules are imported by name, so that a change
in one arm leaves the results of the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from latentwire.arms.loading import arm_module


@dataclass(frozen=True)
class ArmInputs:
    """What arms may use; each reads the files it needs.

    Attributes:
        table_VD: the model's embedding table, in its stored dtype.
        counts_V: token counts of the PCA split, int64.
        compressor: file of the fitted compressor (for ``random``, the random projection).
        compress_dim: K, the axes of it to use.
        adapter: file of the trained adapter.
    """

    table_VD: torch.Tensor
    counts_V: torch.Tensor
    compressor: Path | None = None
    compress_dim: int | None = None
    adapter: Path | None = None


# Token ids [U] to rebuilt embeddings [U, D].
Rebuild = Callable[[ArmInputs, torch.Tensor], torch.Tensor]


def rebuild_function(arm: str) -> Rebuild | None:
    """The arm's function, or None for the arms that read token ids (``text`` and ``question``)."""
    rebuild: Rebuild | None = arm_module(arm).ARMS[arm]
    return rebuild


def not_applicable(arm: str, inputs: ArmInputs) -> str | None:
    """Why an arm can't be had at this code dimension, or None where it can."""
    reason = getattr(arm_module(arm), "not_applicable", None)
    return None if reason is None else reason(inputs)
