"""Train a language model to answer SQuAD questions: LoRA in PEFT's format, or all weights.

The loss is on the answers' tokens alone; a paragraph's questions share its context. An interrupted run is continued by
the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import OPTIMISER, Model, Phase1


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
    parser.add_argument("--method", default="lora", choices=("lora", "full"), help="LoRA, or all weights")
    parser.add_argument("--rank", type=int, default=16, help="of the LoRA matrices")
    parser.add_argument("--lora_alpha", type=int, default=32, help="LoRA's scale times its rank")
    parser.add_argument("--dropout", type=float, default=0.0, help="on the LoRA matrices' inputs")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the sequences")
    parser.add_argument("--batch_size", type=int, default=8, help="sequences a step")
    parser.add_argument("--questions", type=int, default=8, help="most questions behind one context")
    parser.add_argument(
        "--max_tokens", type=int, default=1024, help="longest sequence; longer ones are cut into several"
    )
    parser.add_argument(
        "--precision", default="bfloat16", choices=("float32", "bfloat16"), help="of the matrix products"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the LoRA matrices, the order and the held-out articles"
    )
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="where to train")
    cli.add_settings(parser, Phase1, *OPTIMISER, lr=7e-4)
    cli.add_stop_arguments(parser)
    parser.add_argument("--state", type=Path, default=Path("results/tuning-state"), help="folder for checkpoints")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)
    cli.set_threads(arguments.threads)
    from latentwire.device import choose_device
    from latentwire.readers.tuning import TuningSettings, tune_reader
    from latentwire.training.loop import OptimiserSettings

    settings = TuningSettings(
        method=arguments.method,
        rank=arguments.rank,
        alpha=arguments.lora_alpha,
        dropout=arguments.dropout,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        questions=arguments.questions,
        max_tokens=arguments.max_tokens,
        precision=arguments.precision,
        seed=arguments.seed,
        optimiser=OptimiserSettings(
            arguments.lr, arguments.weight_decay, arguments.warmup_fraction, arguments.gradient_clip
        ),
    )
    tune_reader(
        arguments.model,
        arguments.revision,
        arguments.train_file,
        settings,
        prompt_style=arguments.prompt_style,
        system_prompt=arguments.system_prompt,
        held_out_articles=arguments.held_out_articles,
        measure_sequences=arguments.measure_sequences,
        device=choose_device(arguments.device),
        state=arguments.state,
        output=arguments.output,
        base_name=arguments.base_name,
        stop=stop,
    )


if __name__ == "__main__":
    cli.run(main)
