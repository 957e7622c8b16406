"""Measure how well arms rebuild embeddings: sums per question, so that every figure can have an interval."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    cli.add_variant_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="sums to write (Parquet); a summary goes beside it")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.arms import ArmInputs
    from latentwire.arms.loading import arm_inputs
    from latentwire.compression.counts import load_counts
    from latentwire.data.prompts_table import read_prompts
    from latentwire.evaluation.reconstruction import measure_arms
    from latentwire.files import atomic_path, write_json
    from latentwire.first_layer import first_layer_reading
    from latentwire.provenance import write_provenance

    train_counts = load_counts(arguments.counts)["train"].numpy()
    found = list(arm_inputs(*cli.variant_arguments(arguments)))
    measured = {variant.arm: inputs for variant, inputs, _ in found if isinstance(inputs, ArmInputs)}
    reading = first_layer_reading(arguments.model, arguments.revision)
    sums, summary = measure_arms(measured, read_prompts(arguments.prompts), train_counts, reading)
    with atomic_path(arguments.output) as temporary:
        sums.to_parquet(temporary, index=False)
    write_json(arguments.output.with_suffix(".json"), summary)
    files = [arguments.prompts, arguments.table, arguments.counts, *(file for *_, own in found for file in own)]
    write_provenance(arguments.output, arguments, files, by_products=[arguments.output.with_suffix(".json")])


if __name__ == "__main__":
    cli.run(main)
