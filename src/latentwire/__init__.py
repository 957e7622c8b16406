"""LatentWire: does a language model still answer questions when its prompt's embeddings are compressed?

The public names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from latentwire.adapter import Adapter
    from latentwire.compression.compressor import EmbeddingCompressor
    from latentwire.data.squad import load_squad_subset
    from latentwire.evaluation.squad_metrics import batch_metrics
    from latentwire.training.diagnostics import log_diagnostics

_PUBLIC = {
    "Adapter": "latentwire.adapter",
    "EmbeddingCompressor": "latentwire.compression.compressor",
    "batch_metrics": "latentwire.evaluation.squad_metrics",
    "load_squad_subset": "latentwire.data.squad",
    "log_diagnostics": "latentwire.training.diagnostics",
}

__all__ = ["Adapter", "EmbeddingCompressor", "batch_metrics", "load_squad_subset", "log_diagnostics"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
