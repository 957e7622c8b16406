"""Train a language model to answer SQuAD questions: LoRA in PEFT's format, or all weights.

The loss is on the answers' tokens alone; a paragraph's questions share its context. An interrupted run is continued by
the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from latentwire import cli
from latentwire.settings import Model, Tuning

if TYPE_CHECKING:
    from latentwire.resuming.work import Work


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    parser.add_argument("--base_name", help="what the adapter's configuration calls its base (default: --model)")
    parser.add_argument(
        "--train_file", type=Path, required=True, help="questions to train on: official SQuAD v1.1 JSON"
    )
    parser.add_argument(
        "--held_out_articles", type=int, default=3, help="articles of it to measure on, never trained on"
    )
    parser.add_argument("--measure_sequences", type=int, default=48, help="held-out sequences measured in the log")
    cli.add_settings(parser, Model, "prompt_style", "system_prompt")
    cli.add_settings(parser, Tuning, *Tuning.model_fields)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="where to train")
    cli.add_stop_arguments(parser)
    parser.add_argument("--state", type=Path, default=Path("results/tuning-state"), help="folder for checkpoints")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    return parser.parse_args()


def tune(arguments: argparse.Namespace, work: Work) -> None:
    """Tune, and write the adapter or the model."""
    from latentwire.device import choose_device
    from latentwire.readers.tuning import tune_reader

    tune_reader(
        arguments.model,
        arguments.revision,
        arguments.train_file,
        cli.section(arguments, Tuning),
        prompt_style=arguments.prompt_style,
        system_prompt=arguments.system_prompt,
        held_out_articles=arguments.held_out_articles,
        measure_sequences=arguments.measure_sequences,
        device=choose_device(arguments.device),
        work=work,
        output=arguments.output,
        base_name=arguments.base_name,
    )


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable(arguments) as work:
        tune(arguments, work)


if __name__ == "__main__":
    cli.run(main)
