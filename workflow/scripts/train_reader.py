"""Train the demo's reader and write it as a Hugging Face model directory.

An interrupted run is continued by the same command.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("resources/reader"), help="model directory to write")
    parser.add_argument("--state", type=Path, default=Path("results/reader-state"), help="folder for checkpoints")
    parser.add_argument("--steps", type=int, help="training steps (default: the shipped reader's)")
    parser.add_argument("--contexts", type=int, help="paragraphs per step (default: the shipped reader's)")
    parser.add_argument("--seed", type=int, help="of the weights and the corpus (default: the shipped reader's)")
    parser.add_argument("--width", type=int, help="embedding dimension (default: the shipped reader's)")
    cli.add_stop_arguments(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)

    import torch

    from latentwire.readers.small import ReaderSettings, train_reader
    from latentwire.resuming.work import resumable

    torch.set_num_threads(arguments.threads)
    names = {field.name for field in fields(ReaderSettings)}
    chosen = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    with resumable(arguments.state, stop) as work:
        result = train_reader(ReaderSettings(**chosen), arguments.output, work)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    cli.run(main)
