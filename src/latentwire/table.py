"""The embedding table as a file of an experiment."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from latentwire.files import atomic_path
from latentwire.integrity import reading


def save_table(path: str | Path, table_VD: torch.Tensor) -> None:
    """Write an embedding table, atomically."""
    with atomic_path(path) as temporary:
        save_file({"table_VD": table_VD.contiguous()}, temporary)


def load_table(path: str | Path) -> torch.Tensor:
    """The embedding table written by :func:`save_table`."""
    with reading(path), safe_open(path, framework="pt") as stored:
        return stored.get_tensor("table_VD")
