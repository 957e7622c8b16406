"""Every untrained codec on one table: what it stores, what it loses, how long fitting and decoding take.

Table and prompts are the embedded default's, or a model directory's and those of official SQuAD v1.1 files. Codecs are
fitted by the token counts of training prompts. FVU is the unexplained share of the variance around the mean of their
tokens: over the tokens of other prompts, and over all rows of the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import _inputs
import _machine
import torch

from latentwire.arms_table import ARMS, COMPRESSORS
from latentwire.cli import set_threads
from latentwire.codecs import Codec, NotApplicable
from latentwire.codecs.fitting import fit_codec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import FittingWeighting, count_tokens, fitting_weights, mean_embedding
from latentwire.embeddings import read_embeddings

# What PCA is fitted by, by the compressor's name.
WEIGHTINGS: dict[str, FittingWeighting] = {"pca": "counts", "pca_root": "root", "pca_type": "type"}
# Random axes and the identity are there for what is trained on them.
CODECS = [
    row.name for row in ARMS.values() if row.codec == row.name and COMPRESSORS.get(row.name, "pca") in WEIGHTINGS
]
TOKENS = (64, 1024)
BLOCK_ROWS = 8192


class Errors:
    """Squared errors and deviations of a table's rows.

    Args:
        table_VD: the original rows.
        mean_D: μ.
        occurrences_V: how often each row occurs in the prompts that FVU is measured on.
    """

    def __init__(self, table_VD: torch.Tensor, mean_D: torch.Tensor, occurrences_V: torch.Tensor) -> None:
        self.table_VD, self.weights_V = table_VD, occurrences_V.double()
        self.deviation_V = (table_VD.float() - mean_D.float()).square().sum(dim=1).double()

    def fvu(self, codec: Codec) -> tuple[float, float]:
        """By occurrence and by type."""
        blocks = torch.arange(len(self.table_VD)).split(BLOCK_ROWS)
        error_V = torch.cat(
            [(codec.decode(ids) - self.table_VD[ids].float()).square().sum(dim=1).double() for ids in blocks]
        )
        by_occurrence = (self.weights_V @ error_V) / (self.weights_V @ self.deviation_V)
        return float(by_occurrence), float(error_V.sum() / self.deviation_V.sum())


def measured(codec: Codec, errors: Errors, fitting: float, drawn: list[torch.Tensor], repeats: int) -> list[str]:
    """Bits, both FVUs, seconds to fit, and median microseconds to decode each of the drawn lists of tokens."""
    times = [_machine.seconds(lambda ids_N=ids_N: codec.decode(ids_N), repeats, warmup=3) for ids_N in drawn]
    return [
        f"{codec.bits_per_parameter:.3f}",
        *(f"{share:.3g}" for share in errors.fvu(codec)),
        f"{fitting:.1f}",
        *(f"{1e6 * one:,.0f}" for one in times),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _inputs.add_arguments(parser)
    parser.add_argument(
        "--test_file", default="demo", help="official SQuAD v1.1 JSON (default: the embedded corpus, validation split)"
    )
    parser.add_argument("--test_samples", type=int, default=1000, help="prompts of it at most (default 1,000)")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=CODECS, metavar="CODEC", help="default: all")
    parser.add_argument("--k", type=int, nargs="+", help="code dimensions (default: an eighth and half of the width)")
    parser.add_argument("--repeats", type=int, default=50, help="of decoding (default 50)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.set_defaults(samples=2500)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(arguments.threads)
    _machine.print_heading()
    table_VD = read_embeddings(arguments.model).clone()
    rows, width = table_VD.shape
    train = _inputs.prompts(arguments.model, arguments.train_file, arguments.samples)
    test = _inputs.prompts(arguments.model, arguments.test_file, arguments.test_samples, "validation")
    counts_V, occurrences_V = count_tokens(train, rows), count_tokens(test, rows)
    errors = Errors(table_VD, mean_embedding(table_VD, counts_V), occurrences_V)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.multinomial(errors.weights_V, n, replacement=True, generator=generator) for n in TOKENS]
    dims = arguments.k or [width // 8, width // 2]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.safetensors" for name in WEIGHTINGS}
        start = time.perf_counter()
        for name, weighting in WEIGHTINGS.items():
            weights_V = fitting_weights(counts_V, weighting)
            EmbeddingCompressor(width, max(dims)).fit(table_VD, weights_V).save(files[name])
        of_pca = time.perf_counter() - start
        for codec, k in [(name, k) for name in arguments.codecs for k in (dims if ARMS[name].sized else [None])]:
            label = f"`{codec}`" if k is None else f"`{codec}`, K = {k}"
            start = time.perf_counter()
            try:
                fitted = fit_codec(codec, table_VD, counts_V, k, compressor=files.get(COMPRESSORS.get(codec, "")))
            except NotApplicable as reason:
                print(f"{label} is left out: {reason}", file=sys.stderr)
                continue
            fitting = time.perf_counter() - start
            found.append([label, *measured(fitted, errors, fitting, drawn, arguments.repeats)])
            print(*found[-1], sep=", ", file=sys.stderr, flush=True)
    print(
        f"Table {rows:,} × {width} in {str(table_VD.dtype).removeprefix('torch.')}; counts of {int(counts_V.sum()):,} "
        f"tokens in {len(train):,} prompts, {int((counts_V > 0).sum()):,} types; FVU by occurrence over "
        f"{int(occurrences_V.sum()):,} tokens in {len(test):,} other prompts. PCA was fitted by counts, by their root "
        f"and by type in {of_pca:.1f} s, which count for no codec.\n"
    )
    header = ["codec", "bits per table parameter", "FVU, occurrences", "FVU, types", "seconds to fit"]
    header += [f"µs to decode {number:,} tokens" for number in TOKENS]
    print(_machine.table(header, sorted(found, key=lambda row: float(row[1]))))


if __name__ == "__main__":
    main()
