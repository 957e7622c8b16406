"""Read the model's input embedding table, and nothing else of the model."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.embeddings import read_embeddings
    from latentwire.provenance import write_provenance
    from latentwire.table import save_table

    save_table(arguments.output, read_embeddings(arguments.model, arguments.revision))
    write_provenance(arguments.output, arguments, [])


if __name__ == "__main__":
    cli.run(main)
