"""Phase 1's step: unique tokens against every occurrence of a padded batch, side by side.

    .venv/bin/python benchmarks/phase1.py --model llama-shapes --train_file train-v1.1.json  # Llama-3.1-8B's shapes
    .venv/bin/python benchmarks/phase1.py --k 16  # the embedded default, in a minute

Both take the same batches in turn, the same adapter's start, optimiser and clipping. The naive step embeds and
compresses the padded batch and computes the masked mean squared error over its occurrences; ours has the training
loop's own rows, loss and optimiser. The losses of both, each trained by its own gradients, are compared: they are the
same loss.

Shape suffixes: B batch, L length, U unique tokens, D embedding dimensions, K code dimensions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import _inputs
import _machine
import numpy as np
import torch

from latentwire.adapter import Adapter
from latentwire.cli import set_threads
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.embeddings import read_embeddings
from latentwire.settings import Optimiser
from latentwire.training.loop import make_optimiser
from latentwire.training.objectives import TokenRows, unique_tokens, weighted_error

# A training step on prompts; returns the loss.
Step = Callable[[list[np.ndarray]], float]
SETTINGS = Optimiser(lr=1e-3, weight_decay=0.01, warmup_fraction=0.05, gradient_clip=1.0)


def stepper(adapter: Adapter, loss_of: Callable[[list[np.ndarray]], torch.Tensor]) -> Step:
    """A training step on prompts: loss, gradient, clipping, update; returns the loss."""
    optimiser = make_optimiser(adapter, SETTINGS)

    def step(prompts: list[np.ndarray]) -> float:
        loss = loss_of(prompts)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), SETTINGS.gradient_clip)
        optimiser.step()
        return loss.item()

    return step


def ours(adapter: Adapter, rows: TokenRows) -> Callable[[list[np.ndarray]], torch.Tensor]:
    """The loss over unique tokens, weighted by their counts."""

    def loss_of(prompts: list[np.ndarray]) -> torch.Tensor:
        ids_U, counts_U = unique_tokens(prompts)
        codes_UK, target_UD = rows.of(ids_U)
        return weighted_error(adapter.standardised(codes_UK), target_UD, counts_U)

    return loss_of


def naive(
    adapter: Adapter, table_VD: torch.Tensor, compressor: EmbeddingCompressor
) -> Callable[[list[np.ndarray]], torch.Tensor]:
    """The loss over every occurrence of a padded batch."""

    def loss_of(prompts: list[np.ndarray]) -> torch.Tensor:
        length = max(map(len, prompts))
        ids_BL = torch.zeros(len(prompts), length, dtype=torch.int64)
        mask_BL = torch.zeros(len(prompts), length)
        for row, ids in enumerate(prompts):
            ids_BL[row, : len(ids)] = torch.from_numpy(ids)
            mask_BL[row, : len(ids)] = 1
        x_BLD = table_VD[ids_BL]
        target_BLD = compressor.standardise(x_BLD)
        codes_BLK = (target_BLD @ compressor.components_KD.T).to(x_BLD.dtype)
        error_BL = (adapter.standardised(codes_BLK) - target_BLD).square().mean(dim=-1)
        return (error_BL * mask_BL).sum() / mask_BL.sum()

    return loss_of


def flops(adapter: Adapter, tokens: int) -> int:
    """Of one step: a forward, the weights' gradient, and the inputs' gradient of all but the first layers."""
    products = [module.weight.numel() for module in adapter.modules() if isinstance(module, torch.nn.Linear)]
    first = adapter.linear.weight.numel() + adapter.d_z * adapter.hidden
    return tokens * (6 * sum(products) - 2 * first)


def timed(step: Step, prompts: list[np.ndarray]) -> tuple[float, float]:
    """Seconds and loss of a step."""
    start = time.perf_counter()
    loss = step(prompts)
    return time.perf_counter() - start, loss


def compared(
    size: int,
    batches: list[list[np.ndarray]],
    our_step: Step,
    naive_step: Step,
    flops_of: Callable[[int], int],
    rate: float,
) -> list[object]:
    """A line of the table: both steps on each batch in turn; the first batch is the warm-up, its losses count."""
    times, apart = [], []
    for batch in batches:
        (our_s, our_loss), (naive_s, naive_loss) = timed(our_step, batch), timed(naive_step, batch)
        times.append((our_s, naive_s))
        apart.append(abs(our_loss - naive_loss) / naive_loss)
        print(f"{size} prompts: {our_s:.2f} s, {naive_s:.2f} s", file=sys.stderr, flush=True)
    used = batches[1:]
    unique_N = [len(unique_tokens(batch)[0]) for batch in used]
    our_N, naive_N = np.array(times[1:]).T
    reached = float(np.median([flops_of(unique) / spent for unique, spent in zip(unique_N, our_N, strict=True)]))
    tokens = np.median([sum(map(len, batch)) for batch in used])
    padded = np.median([max(map(len, batch)) * size for batch in used])
    return [
        size,
        f"{np.median(unique_N):,.0f} / {tokens:,.0f} / {padded:,.0f}",
        f"{np.median(our_N):.3g}",
        f"{np.median(naive_N):.3g}",
        f"{np.median(naive_N / our_N):.1f}",
        f"{reached / 1e9:.0f} GFLOP/s, {reached / rate:.0%}",
        f"{max(apart):.0e} ({len(apart)} steps)",
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _inputs.add_arguments(parser)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[32, 64, 256], help="prompts per step")
    parser.add_argument("--k", type=int, default=512, help="code dimension (default 512)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each (default 5)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(torch.get_num_threads())
    _machine.print_heading()
    prompts = _inputs.prompts(arguments.model, arguments.train_file, arguments.samples)
    table_VD = read_embeddings(arguments.model)
    counts_V = count_tokens(prompts, len(table_VD))
    compressor = EmbeddingCompressor(table_VD.shape[1], arguments.k).fit(table_VD, counts_V)
    rows = TokenRows(
        table_VD, compressor.codes(table_VD), compressor, counts_V.nonzero().flatten(), torch.device("cpu")
    )
    rate = _machine.gemm_rate()
    lines = []
    for size in arguments.batch_sizes:
        batches = [prompts[start : start + size] for start in range(0, len(prompts) - size + 1, size)]
        steps = []
        for loss_of in (lambda a: ours(a, rows), lambda a: naive(a, table_VD, compressor)):
            torch.manual_seed(0)
            adapter = Adapter.from_compressor(compressor)
            steps.append(stepper(adapter, loss_of(adapter)))
        lines.append(compared(size, batches[: arguments.repeats + 1], *steps, lambda n: flops(adapter, n), rate))  # noqa: B023
    print(f"Measured rate of a 4096³ float32 product: {rate / 1e9:.0f} GFLOP/s.\n")
    header = ["prompts", "unique / tokens / padded", "ours s", "naive s", "ratio", "ours reaches", "losses apart by"]
    print(_machine.table(header, lines))


if __name__ == "__main__":
    main()
