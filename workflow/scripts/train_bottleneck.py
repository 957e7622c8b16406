"""Phase 2's steps on a linear code and its inverse, which start as PCA's: both are trained through the language model.

Started by torchrun, several processes share the prompts of every step, each on a GPU of its own.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from latentwire import cli
from latentwire.settings import Phase2

if TYPE_CHECKING:
    from latentwire.processes import Processes
    from latentwire.resuming.work import Work


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_phase2_arguments(parser)
    cli.add_training_arguments(parser, codec=None)
    return parser.parse_args()


def train(arguments: argparse.Namespace, work: Work, processes: Processes) -> None:
    """Train, and write the codec and its record."""
    from latentwire.decisions.requirements import require_phase2

    if arguments.decision is not None:
        require_phase2(arguments.decision)
    from latentwire.codecs.files import CODES_FILE
    from latentwire.device import choose_device, described
    from latentwire.lm import load_model, model_identity
    from latentwire.provenance import write_provenance
    from latentwire.training.run_bottleneck import run_bottleneck
    from latentwire.training.run_phase1 import TrainingFiles

    device = choose_device(arguments.device)
    model = load_model(arguments.model, arguments.revision, arguments.dtype, device)
    files = TrainingFiles.of(vars(arguments))
    run_bottleneck(
        files,
        model,
        arguments.compress_dim,
        cli.section(arguments, Phase2),
        seed=arguments.seed,
        device=device,
        model_identity=model_identity(arguments.model, arguments.revision, arguments.dtype, device),
        processes=processes,
        work=work,
    )
    by_products = [*files.by_products, files.output / CODES_FILE]
    write_provenance(arguments.output / "adapter.safetensors", arguments, files.inputs, described(device), by_products)


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable_together(arguments) as (work, processes), processes.output(arguments.output) as output:
        arguments.output = output
        train(arguments, work, processes)


if __name__ == "__main__":
    cli.run(main)
