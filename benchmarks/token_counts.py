"""Token counts of a corpus of any size: counted in parts, side by side, added, and fitted.

    .venv/bin/python benchmarks/token_counts.py --occurrences 1000000000

Ids are drawn (a Zipf-like law over the vocabulary), prompt after prompt, by a generator that keeps none of them;
each process counts its own part as the workflow's own counting does. Drawing is part of the time and is shown apart.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator

import _machine
import numpy as np
import torch

from latentwire.cli import set_threads
from latentwire.compression.counts import count_tokens
from latentwire.compression.pca import fit_pca

PROMPT_TOKENS = 163  # mean length of 10,000 SQuAD prompts with a 32,000-token BPE
BLOCK = 1 << 16


def drawn_prompts(occurrences: int, vocab: int, seed: int) -> Iterator[np.ndarray]:
    """Prompts of ``PROMPT_TOKENS`` ids each, ``occurrences`` in all; id v has a weight of about 1/v."""
    rng = np.random.default_rng(seed)
    left = occurrences
    while left:
        drawn = min(left, BLOCK * PROMPT_TOKENS // 16)
        ids_N = (vocab ** rng.random(drawn, dtype=np.float32)).astype(np.int32) - 1  # 1/v is uniform in log v
        for start in range(0, drawn, PROMPT_TOKENS):
            yield ids_N[start : start + PROMPT_TOKENS].clip(0, vocab - 1)
        left -= drawn


def count_part(part: tuple[int, int, int]) -> tuple[np.ndarray, float, float, int]:
    """One part's counts, seconds of drawing alone, seconds in all, and the process's peak memory."""
    set_threads(1)
    start = time.perf_counter()
    for _ in drawn_prompts(*part):
        pass
    drawing = time.perf_counter() - start
    start = time.perf_counter()
    counts_V = count_tokens(drawn_prompts(*part), part[1])
    return counts_V.numpy(), drawing, time.perf_counter() - start, _machine.peak_memory()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--occurrences", type=int, default=10**9, help="token occurrences (default 10⁹)")
    parser.add_argument("--vocab", type=int, default=128_256, help="vocabulary (default 128,256)")
    parser.add_argument("--width", type=int, default=1024, help="width of the random table that is fitted")
    parser.add_argument("--processes", type=int, default=2, help="parts, each counted by its own process")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(torch.get_num_threads())
    _machine.print_heading()
    share, rest = divmod(arguments.occurrences, arguments.processes)
    parts = [(share + (index < rest), arguments.vocab, index) for index in range(arguments.processes)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        found = pool.map(count_part, parts)
    counts_V = torch.from_numpy(sum(counts for counts, *_ in found))
    assert int(counts_V.sum()) == arguments.occurrences
    table_VD = torch.randn(arguments.vocab, arguments.width)
    start = time.perf_counter()
    fit_pca(table_VD, counts_V, arguments.width // 8)
    fitting = time.perf_counter() - start
    slowest = max(found, key=lambda one: one[2])
    rows = [
        [
            f"{arguments.occurrences:,}",
            f"{int((counts_V > 0).sum()):,}",
            arguments.processes,
            f"{slowest[2]:.1f}",
            f"{slowest[1]:.1f}",
            f"{arguments.occurrences / slowest[2] / 1e6:.0f}",
            f"{slowest[3] / 2**20:.0f}",
            f"{fitting:.1f}",
        ]
    ]
    header = [
        "occurrences",
        "unique",
        "processes",
        "drawing and counting s",
        "drawing alone s",
        "million tokens/s",
        "MiB a process",
        f"PCA of {arguments.vocab:,}×{arguments.width} s",
    ]
    print(_machine.table(header, rows))


if __name__ == "__main__":
    main()
