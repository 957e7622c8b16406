"""Phase 2's pass through the frozen model on the CPU: a row per prompt against packed rows, side by side.

    .venv/bin/python benchmarks/packing.py

A random model of SmolLM2-135M's shape in float32, prompts as long as real ones (squad_lengths.json.gz). Each batch is
read and differentiated in both ways in turn, after a batch that does not count; their losses are compared.

Shape suffixes: B rows, L length, D embedding dimensions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import _machine
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from latentwire.cli import set_threads
from latentwire.packing import Layout, PromptBatch, prompt_batch
from latentwire.training.phase2 import PromptScorer

LENGTHS = Path(__file__).with_name("squad_lengths.json.gz")
SMOLLM2 = {"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}


def build_model(layers: int) -> LlamaForCausalLM:
    """A random frozen model."""
    torch.manual_seed(0)
    config = LlamaConfig(**SMOLLM2, num_hidden_layers=layers, num_key_value_heads=3, tie_word_embeddings=True)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def random_prompts(number: int, size: int) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Batches of random prompts of real lengths, with their label masks."""
    rng = np.random.default_rng(0)
    lengths = json.loads(gzip.decompress(LENGTHS.read_bytes()))["train"]
    chosen = rng.permutation(len(lengths))[: number * size].reshape(number, size)
    batches = []
    for batch in chosen:
        prompts = [rng.integers(0, SMOLLM2["vocab_size"], lengths[index][0]) for index in batch]
        masks = [np.arange(lengths[index][0]) >= lengths[index][0] - lengths[index][1] for index in batch]
        batches.append((prompts, masks))
    return batches


def passed(scorer: PromptScorer, table_VD: torch.Tensor, batch: PromptBatch) -> tuple[float, float]:
    """Seconds of a pass forward and back, and the loss."""
    inputs_BLD = table_VD[batch.ids_BL].requires_grad_()
    start = time.perf_counter()
    loss = scorer.cross_entropy(inputs_BLD, batch)
    loss.backward()
    return time.perf_counter() - start, loss.item()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4, 8], help="prompts per step (default 4 8)")
    parser.add_argument("--batches", type=int, default=6, help="timed batches (default 6)")
    parser.add_argument("--layers", type=int, default=30, help="of the model (default 30)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(torch.get_num_threads())
    _machine.print_heading()
    model = build_model(arguments.layers)
    scorer, table_VD = PromptScorer(model), model.get_input_embeddings().weight.detach()
    lines = []
    for size in arguments.batch_sizes:
        found = []
        for prompts, masks in random_prompts(arguments.batches + 1, size):
            batches = [prompt_batch(prompts, masks, layout) for layout in (Layout(), scorer.layout)]
            times, losses = zip(*(passed(scorer, table_VD, batch) for batch in batches), strict=True)
            positions = [batch.ids_BL.numel() for batch in batches]
            found.append((*times, *positions, sum(map(len, prompts)), abs(losses[1] / losses[0] - 1)))
        padded_s, packed_s, padded, packed, tokens, apart = np.array(found[1:]).T
        lines.append(
            [
                size,
                f"{tokens.mean():,.0f} / {padded.mean():,.0f} / {packed.mean():,.0f}",
                f"{padded_s.mean():.2f}",
                f"{packed_s.mean():.2f}",
                f"{padded_s.sum() / packed_s.sum():.2f}",
                f"{apart.max():.0e}",
            ]
        )
    header = ["prompts", "tokens / padded / packed", "padded s", "packed s", "ratio", "losses apart by"]
    print(_machine.table(header, lines))


if __name__ == "__main__":
    main()
