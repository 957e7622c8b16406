"""Real prompts and an embedding table for the benchmarks: official SQuAD v1.1 JSON and a local model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import read_squad_json
from latentwire.lm import load_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--model``, ``--train_file`` and ``--samples``."""
    parser.add_argument("--model", required=True, help="model directory (stand_in_model.py makes one)")
    parser.add_argument("--train_file", type=Path, required=True, help="official SQuAD v1.1 JSON")
    parser.add_argument("--samples", type=int, default=10_000, help="prompts (default 10,000)")


def prompts(model: str, train_file: Path, samples: int) -> list[np.ndarray]:
    """Token ids of ``samples`` prompts (the file's questions in a seeded random order)."""
    frame = pd.DataFrame(read_squad_json(train_file).to_pandas())
    order = np.random.default_rng(0).permutation(len(frame))[:samples]
    rows = [{str(k): v for k, v in row.items()} for row in frame.iloc[order].to_dict("records")]
    renderer = PromptRenderer(load_tokenizer(model), "chat", None)
    return [np.array(prompt.input_ids, dtype=np.int64) for prompt in renderer.prompts(rows)]
