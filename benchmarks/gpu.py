"""The stages that need a GPU, at Llama-3.1-8B's shapes with random weights; or at small shapes on the CPU.

    .venv/bin/python benchmarks/gpu.py                 # CUDA, Llama-3.1-8B's shapes
    .venv/bin/python benchmarks/gpu.py --shapes tiny   # any machine: shows that every path runs

Nothing is downloaded: random weights take the same time. Figures are medians of the timed steps, after warm-up.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import _machine
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.data.tokenizer import build_tokenizer
from latentwire.evaluation.generate import Decoder
from latentwire.settings import Optimiser
from latentwire.training.loop import make_optimiser
from latentwire.training.objectives import TokenRows, autocast, unique_tokens, weighted_error
from latentwire.training.phase2 import PromptScorer, prompt_batch, prompt_inputs


@dataclass(frozen=True)
class Shapes:
    """A model's and a batch's sizes."""

    vocab: int
    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    code: int
    prompts: int
    tokens: int


SHAPES = {
    "llama-3.1-8b": Shapes(128_256, 4096, 14_336, 32, 32, 8, 512, 8, 256),
    "tiny": Shapes(4000, 64, 128, 2, 4, 2, 8, 4, 64),
}


def build_model(shapes: Shapes, device: torch.device) -> LlamaForCausalLM:
    """A random frozen model on the device, made there so that no second copy is ever in memory."""
    config = LlamaConfig(
        vocab_size=shapes.vocab,
        hidden_size=shapes.width,
        intermediate_size=shapes.mlp,
        num_hidden_layers=shapes.layers,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.kv_heads,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    with device:
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval().requires_grad_(False)


def timed(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of a step, after two warm-up steps; on CUDA until the device is done."""

    def finished() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _machine.seconds(finished, repeats, warmup=2)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=tuple(SHAPES), default="llama-3.1-8b", help="sizes to run at")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each stage (default 5)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    shapes = SHAPES[arguments.shapes]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.shapes != "tiny" and device.type == "cpu":
        raise SystemExit("benchmarks/gpu.py: no CUDA device here; --shapes tiny runs on the CPU")
    model = build_model(shapes, device)
    table_VD = model.get_input_embeddings().weight.detach().cpu()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(100, shapes.vocab, shapes.tokens) for _ in range(shapes.prompts)]
    counts_V = torch.from_numpy(rng.integers(0, 50, shapes.vocab))
    figures: dict[str, float] = {}

    start = time.perf_counter()
    compressor = EmbeddingCompressor(shapes.width, shapes.code).fit(table_VD, counts_V)
    figures["fit_pca_cpu_s"] = time.perf_counter() - start
    adapter = Adapter.from_compressor(compressor).to(device)
    settings = Optimiser(lr=1e-4, weight_decay=0.01, warmup_fraction=0.05, gradient_clip=1.0)
    optimiser = make_optimiser(adapter, settings)
    rows = TokenRows(table_VD, compressor.codes(table_VD), compressor, torch.arange(shapes.vocab), device)
    ids_U, counts_U = unique_tokens(prompts)
    batch = prompt_batch(prompts, [np.ones(shapes.tokens, dtype=bool)] * shapes.prompts)
    reader = PromptScorer(model)

    def rebuild() -> tuple[torch.Tensor, torch.Tensor]:
        codes_UK, target_UD = rows.of(ids_U)
        with autocast(device):
            standardised_UD = adapter.standardised(codes_UK).float()
        return standardised_UD, weighted_error(standardised_UD, target_UD, counts_U)

    def update(loss: torch.Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), settings.gradient_clip)
        optimiser.step()
        loss.item()

    def phase2_loss() -> torch.Tensor:
        standardised_UD, reconstruction = rebuild()
        rebuilt_UD = adapter.mean_D + adapter.scale * standardised_UD
        return reconstruction + reader.cross_entropy(prompt_inputs(rebuilt_UD, ids_U, batch.ids_BL), batch)

    figures["phase1_step_s"] = timed(lambda: update(rebuild()[1]), device, arguments.repeats)
    figures["phase2_step_s"] = timed(lambda: update(phase2_loss()), device, arguments.repeats)
    tokens = shapes.prompts * shapes.tokens
    figures["phase2_tokens_per_s"] = tokens / figures["phase2_step_s"]
    decoder = Decoder(model, build_tokenizer(), max_new_tokens=16)
    with torch.no_grad():
        rebuilt_UD = adapter(rows.of(ids_U)[0])
    figures["generate_16_tokens_s"] = timed(
        lambda: decoder.answers(prompts, rebuilt_UD, ids_U), device, arguments.repeats
    )
    # Four prompts per context, of three quarters of their tokens.
    context = 3 * shapes.tokens // 4
    alike = [np.concatenate([prompts[row - row % 4][:context], ids[context:]]) for row, ids in enumerate(prompts)]
    figures["generate_16_tokens_shared_contexts_s"] = timed(
        lambda: decoder.answers(alike, rebuilt_UD, ids_U), device, arguments.repeats
    )
    if device.type == "cuda":
        figures["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else _machine.cpu_name()
    print(
        json.dumps(
            {
                "shapes": arguments.shapes,
                "device": hardware,
                "commit": _machine.commit(),
                "date": date.today().isoformat(),
                "torch": torch.__version__,
                **{name: round(value, 4) for name, value in figures.items()},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
