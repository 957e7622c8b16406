"""Fit an untrained codec: store the embedding table in the form that it is decoded from."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--codec", required=True, help="pca, random, quant, int8, pq4, …, or the name of a codec of your own"
    )
    parser.add_argument("--file", type=Path, help="Python file with a codec of your own")
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    parser.add_argument("--counts", type=Path, required=True, help="token counts")
    parser.add_argument(
        "--compressor", type=Path, help="fitted compressor, for codecs with codes on its axes, such as pca_int8"
    )
    parser.add_argument("--compress_dim", type=int, help="code dimension K, the budget of a codec that has one")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.codecs.base import NotApplicable
    from latentwire.codecs.files import CODES_FILE, DECODER_FILE, decline
    from latentwire.codecs.fitting import fit_codec
    from latentwire.compression.counts import load_counts
    from latentwire.provenance import write_provenance
    from latentwire.table import load_table

    table, counts = load_table(arguments.table), load_counts(arguments.counts)["pca"]
    try:
        codec = fit_codec(
            arguments.codec,
            table,
            counts,
            arguments.compress_dim,
            compressor=arguments.compressor,
            file=arguments.file,
        )
    except NotApplicable as reason:
        logging.warning("the codec %s is left out: %s", arguments.codec, reason)
        decline(arguments.output, str(reason))
    else:
        codec.save_pretrained(arguments.output)
        rate = f"{codec.bits_per_parameter:.3f} bits per table parameter, {codec.stored_bytes / 1e6:.2f} MB"
        logging.info("%s: %s", arguments.codec, rate)
    inputs = [arguments.table, arguments.counts, arguments.compressor, arguments.file]
    stored = [arguments.output / name for name in (CODES_FILE, DECODER_FILE)]
    write_provenance(arguments.output / "config.json", arguments, inputs, by_products=stored)


if __name__ == "__main__":
    cli.run(main)
