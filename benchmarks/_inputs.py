"""Prompts and an embedding table for the benchmarks: of the embedded default, or real text and a model directory."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from _machine import ROOT

from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import read_rows
from latentwire.lm import load_tokenizer

READER = str(ROOT / "resources" / "reader")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--model``, ``--train_file`` and ``--samples``."""
    parser.add_argument(
        "--model", default=READER, help="model directory (default: the embedded reader; stand_in_model.py makes one)"
    )
    parser.add_argument(
        "--train_file", default="demo", help="official SQuAD v1.1 JSON (default: the embedded corpus, training split)"
    )
    parser.add_argument("--samples", type=int, default=10_000, help="prompts at most (default 10,000)")


def prompts(model: str, data: str, samples: int, split: str = "train") -> list[np.ndarray]:
    """Token ids of at most ``samples`` prompts of a split, in a seeded random order."""
    frame = pd.DataFrame(read_rows(split, data, None, 0))
    order = np.random.default_rng(0).permutation(len(frame))[:samples]
    rows = [{str(k): v for k, v in row.items()} for row in frame.iloc[order].to_dict("records")]
    renderer = PromptRenderer(load_tokenizer(model))
    return [np.array(prompt.input_ids, dtype=np.int64) for prompt in renderer.prompts(rows)]
