"""The training log: one JSON object a line, appended."""

import json

import numpy as np
import torch

from latentwire import log_diagnostics


def test_each_call_appends_one_line_with_the_plans_names(tmp_path):
    path = tmp_path / "new" / "diagnostics.jsonl"
    metrics = {"recon_mse": 0.5, "recon_cosine_sim": np.float32(0.25), "recon_rel_error": torch.tensor(2.0)}
    log_diagnostics(path, 3, 0.5, metrics)
    log_diagnostics(str(path), np.int64(4), 1, {})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 3, "epoch": 0.5, "recon_mse": 0.5, "recon_cosine_sim": 0.25, "recon_rel_error": 2.0},
        {"step": 4, "epoch": 1.0},
    ]
