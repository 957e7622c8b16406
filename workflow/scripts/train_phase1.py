"""Phase 1: train the adapter on reconstruction alone, from prepared files. No language model is loaded."""

from __future__ import annotations

import argparse

from latentwire import cli
from latentwire.settings import AdapterSettings, Phase1


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, Phase1, *Phase1.model_fields)
    cli.add_settings(parser, AdapterSettings, *AdapterSettings.model_fields)
    cli.add_training_arguments(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)
    cli.set_threads(arguments.threads)
    from latentwire.device import choose_device
    from latentwire.provenance import write_provenance
    from latentwire.training.run_phase1 import TrainingFiles, run_phase1

    device = choose_device(arguments.device)
    files = TrainingFiles.of(vars(arguments))
    checkpoints = run_phase1(
        files,
        arguments.compress_dim,
        cli.section(arguments, Phase1),
        device,
        seed=arguments.seed,
        hidden=arguments.hidden,
        stop=stop,
    )
    write_provenance(arguments.output / "adapter.safetensors", arguments, files.inputs, str(device))
    checkpoints.clear()


if __name__ == "__main__":
    cli.run(main)
