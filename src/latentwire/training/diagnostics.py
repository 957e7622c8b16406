"""The training log: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def log_diagnostics(path: str | Path, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
    """Append one line of training diagnostics.

    Args:
        path: the JSONL file; its folder is made if it is missing.
        step: optimiser steps done.
        epoch: passes over the training prompts done, a fraction within an epoch.
        metrics: numbers by name, among them ``recon_mse`` (mean squared error a dimension in raw units),
            ``recon_cosine_sim`` and ``recon_rel_error`` (‖x − x̂‖/‖x‖) on held-out prompts.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"step": int(step), "epoch": float(epoch)} | {k: float(v) for k, v in metrics.items()})
    with path.open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")
