"""Phase 1's steps on the rows that product quantisation rebuilds: train an adapter that adds to them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from latentwire import cli
from latentwire.settings import Phase1

if TYPE_CHECKING:
    from latentwire.resuming.work import Work


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_phase1_arguments(parser, codec="product quantisation whose rows are")
    return parser.parse_args()


def train(arguments: argparse.Namespace, work: Work) -> None:
    """Train, and write the adapter and its record."""
    from latentwire.codecs.files import DECODER_FILE
    from latentwire.device import choose_device, described
    from latentwire.provenance import write_provenance
    from latentwire.training.run_phase1 import CodecTrainingFiles
    from latentwire.training.run_quantised import run_quantised

    device = choose_device(arguments.device)
    files = CodecTrainingFiles.of(vars(arguments))
    run_quantised(
        files,
        cli.section(arguments, Phase1),
        device,
        seed=arguments.seed,
        weighting=arguments.weighting,
        hidden=arguments.hidden,
        work=work,
    )
    inputs = [*files.inputs, arguments.codec / DECODER_FILE]
    write_provenance(arguments.output / "adapter.safetensors", arguments, inputs, described(device), files.by_products)


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable(arguments) as work:
        train(arguments, work)


if __name__ == "__main__":
    cli.run(main)
