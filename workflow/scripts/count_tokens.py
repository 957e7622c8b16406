"""Count the tokens of the PCA split (the first prompts of ``train``, which is in random order) and of all of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Pca


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="prepared training prompts")
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    cli.add_settings(parser, Pca, "samples")
    parser.add_argument("--output", type=Path, required=True, help="counts to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.compression.counts import count_splits, save_counts
    from latentwire.data.prompts_table import count_prompts, iterate_prompt_ids
    from latentwire.provenance import write_provenance
    from latentwire.table import load_table

    vocab_size = len(load_table(arguments.table))
    prompts, available = iterate_prompt_ids(arguments.train), count_prompts(arguments.train)
    save_counts(arguments.output, **count_splits(prompts, available, arguments.samples, vocab_size))
    write_provenance(arguments.output, arguments, [arguments.train, arguments.table])


if __name__ == "__main__":
    cli.run(main)
