"""PCA of prompt embeddings: token counts against what else one would use, side by side on the same occurrences.

    .venv/bin/python benchmarks/pca.py --model llama-shapes --train_file train-v1.1.json  # Llama-3.1-8B's shapes
    .venv/bin/python benchmarks/pca.py --k 16  # the embedded default, in a minute

Every method runs in its own process on the first N token occurrences of the same shuffled prompts. The peers get the
occurrences' embeddings gathered as float32 [N, D], which is the input they need; that gathering is not in their time
but is in their memory. (IncrementalPCA gathers a batch at a time, which is in its time.) Where a peer was not run (its
time or memory would not do) its figure is extrapolated from its largest two sizes and marked with ~; IncrementalPCA's
memory is that of its largest size. All components are judged by one yardstick: the variance that they keep of these
very occurrences, over the total.

Shape suffixes: N occurrences, V table rows, D embedding dimensions, K components.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _inputs
import _machine
import numpy as np
import torch
from sklearn.decomposition import PCA, IncrementalPCA

from latentwire.cli import set_threads
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.compression.pca import weighted_moments
from latentwire.embeddings import read_embeddings
from latentwire.table import load_table, save_table

OURS = "token counts (this project)"


def fit_counts(table_VD: torch.Tensor, ids_N: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """Counting and the exact fit."""

    def fit() -> np.ndarray:
        counts_V = count_tokens([ids_N], len(table_VD))
        return EmbeddingCompressor(table_VD.shape[1], k).fit(table_VD, counts_V).components_KD.numpy()

    return fit


def fit_sklearn(estimator: Any) -> Callable[[torch.Tensor, np.ndarray, int], Callable[[], np.ndarray]]:
    """A scikit-learn estimator on the gathered occurrences."""

    def prepare(table_VD: torch.Tensor, ids_N: np.ndarray, k: int) -> Callable[[], np.ndarray]:
        x_ND = gathered(table_VD, ids_N).numpy()
        return lambda: estimator(k).fit(x_ND).components_

    return prepare


def fit_incremental(table_VD: torch.Tensor, ids_N: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """``IncrementalPCA`` as it is meant for large data: batches of its default size, gathered one after another."""
    estimator = IncrementalPCA(k)
    size = 5 * table_VD.shape[1]

    def fit() -> np.ndarray:
        for start in range(0, len(ids_N), size):
            estimator.partial_fit(gathered(table_VD, ids_N[start : start + size]).numpy())
        return estimator.components_

    return fit


def fit_lowrank(table_VD: torch.Tensor, ids_N: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """``torch.pca_lowrank`` with its defaults on the gathered occurrences."""
    x_ND = gathered(table_VD, ids_N)
    return lambda: torch.pca_lowrank(x_ND, q=k)[2].T.numpy()


def gathered(table_VD: torch.Tensor, ids_N: np.ndarray, block: int = 65_536) -> torch.Tensor:
    """One float32 row an occurrence, ``[N, D]``."""
    x_ND = torch.empty(len(ids_N), table_VD.shape[1])
    for start in range(0, len(ids_N), block):
        x_ND[start : start + block] = table_VD[torch.from_numpy(ids_N[start : start + block])]
    return x_ND


METHODS: dict[str, Callable[[torch.Tensor, np.ndarray, int], Callable[[], np.ndarray]]] = {
    OURS: fit_counts,
    "scikit-learn IncrementalPCA": fit_incremental,
    "scikit-learn PCA, covariance_eigh": fit_sklearn(lambda k: PCA(k, svd_solver="covariance_eigh", copy=False)),
    "scikit-learn PCA, randomized": fit_sklearn(lambda k: PCA(k, svd_solver="randomized", copy=False, random_state=0)),
    "torch.pca_lowrank": fit_lowrank,
}


# What takes its batches one after another keeps the memory of its second one.
STREAMED = {"scikit-learn IncrementalPCA"}


def run_child(arguments: argparse.Namespace) -> None:
    """Fit one method once and print its seconds, memory and components' file."""
    torch.manual_seed(0)
    folder = arguments.child
    table_VD = load_table(folder / "table.safetensors")
    ids_N = np.load(folder / "ids.npy", mmap_mode="r")[: arguments.occurrences].astype(np.int64)
    before = _machine.peak_memory()
    fit = METHODS[arguments.method](table_VD, ids_N, arguments.k)
    start = time.perf_counter()
    components_KD = fit()
    spent = time.perf_counter() - start
    np.save(folder / "components.npy", components_KD)
    # Small fits stay below what importing the libraries took at its peak.
    print(json.dumps({"seconds": spent, "memory": max(_machine.peak_memory() - before, 2**20)}))


def measure(folder: Path, method: str, occurrences: int, k: int, repeats: int) -> dict[str, float]:
    """Medians of several processes, and the share of the variance kept."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--child", str(folder), "--method", method, "--k", str(k)]
        done = subprocess.run(
            [*command, "--occurrences", str(occurrences)], stdout=subprocess.PIPE, text=True, check=True
        )
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    figures = {name: statistics.median(one[name] for one in found) for name in found[0]}
    print(f"{method}, {occurrences:,}: {figures['seconds']:.1f} s", file=sys.stderr, flush=True)
    return figures


def kept(covariance_DD: torch.Tensor, components_KD: np.ndarray) -> float:
    """Variance along orthonormalised components over the total."""
    axes_DK = torch.linalg.qr(torch.from_numpy(np.ascontiguousarray(components_KD)).double().T).Q
    return float(((covariance_DD @ axes_DK) * axes_DK).sum() / covariance_DD.trace())


def extrapolated(method: str, what: str, known: dict[int, dict[str, float]], target: int) -> float:
    """The straight line through a method's last two measurements, at ``target``; a streamed one's memory stays."""
    sizes = sorted(known)
    values = [known[size][what] for size in sizes]
    if what == "memory" and method in STREAMED:
        return values[-1]
    if len(sizes) == 1:
        return values[0] * target / sizes[0]
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    return values[-1] + slope * (target - sizes[-1])


def compare(folder: Path, ids_N: np.ndarray, arguments: argparse.Namespace) -> str:
    """The table of all methods at all sizes."""
    table_VD = load_table(folder / "table.safetensors")
    measured: dict[str, dict[int, dict[str, float]]] = {method: {} for method in METHODS}
    kept_by: dict[tuple[str, int], float] = {}
    rows = []
    for n in arguments.sizes:
        covariance_DD = weighted_moments(table_VD, count_tokens([ids_N[:n]], len(table_VD))).covariance_DD
        for method in METHODS:
            limit = n if method == OURS else arguments.limits.get(method, 0)
            if n <= limit:
                measured[method][n] = measure(folder, method, n, arguments.k, arguments.repeats)
                kept_by[method, n] = kept(covariance_DD, np.load(folder / "components.npy"))
        unique = len(np.unique(ids_N[:n]))
        ours = measured[OURS][n]
        for method in filter(measured.get, METHODS):
            known = measured[method]
            guess = "" if n in known else "~"
            time_s, memory = (
                known[n][what] if n in known else extrapolated(method, what, known, n)
                for what in ("seconds", "memory")
            )
            share = f"{kept_by[method, n]:.4f}" if (method, n) in kept_by else "not run"
            rows.append(
                [
                    f"{n:,}",
                    f"{unique:,}",
                    method,
                    f"{guess}{time_s:,.2f}",
                    f"{guess}{memory / 2**30:.2f}",
                    share,
                    f"{guess}{time_s / ours['seconds']:,.1f}",
                    f"{guess}{memory / ours['memory']:.1f}",
                ]
            )
    header = [
        "occurrences",
        "unique",
        "method",
        "s",
        "GiB above imports",
        "variance kept",
        "time ratio",
        "memory ratio",
    ]
    return _machine.table(header, rows)


def floor(table_VD: torch.Tensor, ids_N: np.ndarray) -> str:
    """FLOPs of the covariance at the largest size against the machine's rate."""
    counts_V = count_tokens([ids_N], len(table_VD))
    unique, width = int((counts_V > 0).sum()), table_VD.shape[1]
    rate = _machine.gemm_rate()
    spent = _machine.seconds(lambda: weighted_moments(table_VD, counts_V), 3)
    flops = 2 * unique * width**2
    return (
        f"Covariance of {unique:,} unique rows: {flops / 1e9:,.0f} GFLOP as a full product (half by symmetry), "
        f"{unique * width * table_VD.element_size() / 2**20:,.0f} MiB read; {spent:.2f} s, {flops / spent / 1e9:.0f} "
        f"GFLOP/s, {flops / spent / rate:.0%} of the measured rate of a 4096³ float32 product "
        f"({rate / 1e9:.0f} GFLOP/s)."
    )


def float64_covariance(table_VD: torch.Tensor, ids_U: torch.Tensor, weights_U: torch.Tensor) -> torch.Tensor:
    """The covariance of weighted table rows, summed in float64 throughout."""
    parts = list(zip(ids_U.split(4096), weights_U.double().split(4096), strict=True))
    total = float(weights_U.sum())
    mean_D = torch.stack([weights @ table_VD[ids].double() for ids, weights in parts]).sum(dim=0) / total
    covariance_DD = torch.zeros(len(mean_D), len(mean_D), dtype=torch.float64)
    for ids, weights in parts:
        centred_UD = table_VD[ids].double() - mean_D
        covariance_DD += (centred_UD * weights[:, None]).T @ centred_UD
    return covariance_DD / (total - 1)


def exactness(table_VD: torch.Tensor, ids_N: np.ndarray, sizes: list[int]) -> str:
    """Our covariance against float64 sums: of gathered occurrences, and of weighted rows at the largest size."""
    few_N, all_N = (torch.from_numpy(ids_N[:size].astype(np.int64)) for size in (sizes[0], sizes[-1]))
    counts_V = count_tokens([all_N.numpy()], len(table_VD))
    used_U = counts_V.nonzero().flatten()
    apart = []
    for own_N, ids, weights in ((few_N, few_N, torch.ones(len(few_N))), (all_N, used_U, counts_V[used_U])):
        wanted_DD = float64_covariance(table_VD, ids, weights)
        found_DD = weighted_moments(table_VD, count_tokens([own_N.numpy()], len(table_VD))).covariance_DD
        apart.append(float((found_DD - wanted_DD).abs().max() / wanted_DD.diagonal().max()))
    return (
        f"Largest error of an entry of our covariance, over the largest variance: {apart[0]:.0e} against float64 sums "
        f"over {len(few_N):,} gathered occurrences; {apart[1]:.0e} against float64 sums over the weighted rows of "
        f"{len(all_N):,} occurrences."
    )


def growth(table_VD: torch.Tensor, ids_N: np.ndarray, k: int) -> str:
    """Seconds of our fit against the unique tokens, the corpus at equal unique tokens, and the width."""
    counts_V = count_tokens([ids_N], len(table_VD))
    half_V = counts_V.clone()
    half_V[counts_V.nonzero().flatten()[::2]] = 0
    rows = []
    for what, counts, width in (
        ("as it is", counts_V, table_VD.shape[1]),
        ("every count × 1000", counts_V * 1000, table_VD.shape[1]),
        ("half of the unique tokens", half_V, table_VD.shape[1]),
        ("half of the width", counts_V, table_VD.shape[1] // 2),
        ("a quarter of the width", counts_V, table_VD.shape[1] // 4),
    ):
        narrow_VD = table_VD[:, :width].contiguous()
        spent = _machine.seconds(
            lambda: EmbeddingCompressor(width, min(k, width)).fit(narrow_VD, counts),  # noqa: B023
            3,
        )
        rows.append([what, f"{int(counts.sum()):,}", f"{int((counts > 0).sum()):,}", width, f"{spent:.2f}"])
    return _machine.table(["ours", "occurrences", "unique", "width", "s"], rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if "--child" in sys.argv:
        parser.add_argument("--child", type=Path)
        parser.add_argument("--method")
        parser.add_argument("--occurrences", type=int)
    else:
        _inputs.add_arguments(parser)
        parser.add_argument(
            "--sizes",
            type=int,
            nargs="+",
            default=[20_480, 40_960, 163_840, 850_000],
            help="occurrences",
        )
        parser.add_argument("--repeats", type=int, default=3, help="processes of each method and size (default 3)")
        for flag, default in (("incremental", 40_960), ("covariance", 850_000), ("randomized", 163_840)):
            parser.add_argument(f"--{flag}_limit", type=int, default=default, help="largest size it is run at")
        parser.add_argument(
            "--lowrank_limit", type=int, default=163_840, help="largest size torch.pca_lowrank is run at"
        )
    parser.add_argument("--k", type=int, default=512, help="components (default 512)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(torch.get_num_threads())
    if hasattr(arguments, "child"):
        run_child(arguments)
        return
    _machine.print_heading()
    limits = ("incremental_limit", "covariance_limit", "randomized_limit", "lowrank_limit")
    arguments.limits = dict(zip(list(METHODS)[1:], (getattr(arguments, limit) for limit in limits), strict=True))
    ids_N = np.concatenate(_inputs.prompts(arguments.model, arguments.train_file, arguments.samples)).astype(np.int32)
    arguments.sizes = sorted({min(size, len(ids_N)) for size in arguments.sizes})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_table(folder / "table.safetensors", read_embeddings(arguments.model))
        np.save(folder / "ids.npy", ids_N)
        report = compare(folder, ids_N, arguments)
        table_VD = load_table(folder / "table.safetensors")
        print(f"{floor(table_VD, ids_N)}\n\n{exactness(table_VD, ids_N, arguments.sizes)}\n\n{report}")
        print(f"\n{growth(table_VD, ids_N, arguments.k)}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
