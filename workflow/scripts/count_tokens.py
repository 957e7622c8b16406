"""Count the tokens of the PCA split (the first prompts of ``train``, which is in random order) and of all of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="prepared training prompts")
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    parser.add_argument("--samples", default="auto", help="prompts PCA sees: a number, 'all', or 'auto'")
    parser.add_argument("--output", type=Path, required=True, help="counts to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.compression.counts import count_tokens, pca_sample_size, save_counts
    from latentwire.compression.table import load_table
    from latentwire.data.prompts_table import read_prompts
    from latentwire.provenance import write_provenance

    sequences = list(read_prompts(arguments.train, ["input_ids"])["input_ids"])
    vocab_size = len(load_table(arguments.table))
    chosen = pca_sample_size(arguments.samples, len(sequences))
    save_counts(
        arguments.output,
        pca=count_tokens(sequences[:chosen], vocab_size),
        train=count_tokens(sequences, vocab_size),
    )
    write_provenance(arguments.output, arguments, [arguments.train, arguments.table])


if __name__ == "__main__":
    cli.run(main)
