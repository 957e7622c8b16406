"""Phase 2: generation-aware training from Phase 1's adapter, or with --beta 0 its control, which loads no model.

Without --adapter, it starts from the compressor's inverse.

Started by torchrun, several processes share the prompts of every step, each on a GPU of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from latentwire import cli
from latentwire.settings import AdapterSettings, Phase2

if TYPE_CHECKING:
    from latentwire.processes import Processes
    from latentwire.resuming.work import Work


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_phase2_arguments(parser)
    parser.add_argument("--adapter", type=Path, help="Phase 1's adapter, the warm start")
    parser.add_argument("--control", type=Path, help="the control's adapter, to be measured beside")
    parser.add_argument(
        "--objective",
        default="cross_entropy",
        choices=("cross_entropy", "distillation"),
        help="what beta weighs: the prompt's cross-entropy, or KL(original || rebuilt) of the model's predictions",
    )
    cli.add_settings(parser, AdapterSettings, *AdapterSettings.model_fields)
    cli.add_training_arguments(parser, codec="linear codec whose codes are")
    return parser.parse_args()


def train(arguments: argparse.Namespace, work: Work, processes: Processes) -> None:
    """Train, and write the adapter and its record."""
    from latentwire.decisions.requirements import require_phase2

    if arguments.decision is not None:
        require_phase2(arguments.decision)
    from latentwire.device import choose_device, described
    from latentwire.lm import load_model, model_identity
    from latentwire.provenance import write_provenance
    from latentwire.training.run_phase1 import CodecTrainingFiles
    from latentwire.training.run_phase2 import run_phase2

    device = choose_device(arguments.device)
    model, identity = None, []
    if arguments.beta != 0:
        model = load_model(arguments.model, arguments.revision, arguments.dtype, device)
        identity = model_identity(arguments.model, arguments.revision, arguments.dtype, device)
    files = CodecTrainingFiles.of(vars(arguments))
    run_phase2(
        files,
        arguments.adapter,
        model,
        arguments.compress_dim,
        cli.section(arguments, Phase2),
        seed=arguments.seed,
        device=device,
        objective=arguments.objective,
        model_identity=identity,
        control_adapter=arguments.control,
        hidden=arguments.hidden,
        processes=processes,
        work=work,
    )
    inputs = [*files.inputs, arguments.adapter, arguments.control]
    write_provenance(arguments.output / "adapter.safetensors", arguments, inputs, described(device), files.by_products)


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable_together(arguments) as (work, processes), processes.output(arguments.output) as output:
        arguments.output = output
        train(arguments, work, processes)


if __name__ == "__main__":
    cli.run(main)
