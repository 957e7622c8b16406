"""Phase 1: train the adapter on reconstruction alone, from prepared files. No language model is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import AdapterSettings, Phase1


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="prepared training prompts")
    parser.add_argument("--held_out", type=Path, required=True, help="prepared prompts for the log's metrics")
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    parser.add_argument("--compressor", type=Path, required=True, help="fitted compressor")
    parser.add_argument("--compress_dim", type=int, required=True, help="code dimension")
    parser.add_argument("--seed", type=int, default=0, help="of the data order")
    cli.add_settings(parser, Phase1, *Phase1.model_fields)
    cli.add_settings(parser, AdapterSettings, *AdapterSettings.model_fields)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
    cli.add_stop_arguments(parser)
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints of interrupted runs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)
    cli.set_threads(arguments.threads)
    from latentwire.device import choose_device
    from latentwire.provenance import write_provenance
    from latentwire.training.run_phase1 import TrainingFiles, run_phase1

    device = choose_device(arguments.device)
    files = TrainingFiles(
        arguments.train, arguments.held_out, arguments.table, arguments.compressor, arguments.state, arguments.output
    )
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
