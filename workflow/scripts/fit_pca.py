"""Fit the compressor: exact PCA, by token counts or other weights, or a control: random axes, or the table's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Pca


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    parser.add_argument("--counts", type=Path, required=True, help="token counts")
    parser.add_argument(
        "--method", choices=("pca", "random", "identity"), default="pca", help="axes of the compressor"
    )
    parser.add_argument(
        "--weighting",
        choices=("counts", "root", "type"),
        default="counts",
        help="what a token type weighs: its count, the square root of that plus one, or as much as any other",
    )
    parser.add_argument("--compress_dim", type=int, help="largest code dimension asked for; by default all")
    cli.add_settings(parser, Pca, "smoothing")
    parser.add_argument("--seed", type=int, default=0, help="of the random axes")
    parser.add_argument("--output", type=Path, required=True, help="compressor to write")
    parser.add_argument("--spectrum", type=Path, help="table of eigenvalues to write (pca)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.compression.compressor import EmbeddingCompressor
    from latentwire.compression.counts import fitting_weights, load_counts
    from latentwire.errors import InputError
    from latentwire.files import write_text
    from latentwire.provenance import write_provenance
    from latentwire.table import load_table

    table = load_table(arguments.table)
    width = table.shape[1]
    compress_dim = width if arguments.compress_dim is None else arguments.compress_dim
    weights = fitting_weights(load_counts(arguments.counts)["pca"], arguments.weighting)
    try:
        compressor = EmbeddingCompressor(width, compress_dim, arguments.method, seed=arguments.seed).fit(
            table, weights, arguments.smoothing
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    compressor.save(arguments.output)
    if arguments.spectrum is not None:
        write_text(arguments.spectrum, compressor.spectrum_table())
    spectrum = [path for path in (arguments.spectrum,) if path is not None]
    write_provenance(arguments.output, arguments, [arguments.table, arguments.counts], by_products=spectrum)


if __name__ == "__main__":
    cli.run(main)
