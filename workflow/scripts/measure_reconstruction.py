"""Measure how well arms rebuild embeddings on gate: sums a question, so that every figure can have an interval."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--arms", nargs="+", required=True, help="arms to measure")
    parser.add_argument("--prompts", type=Path, required=True, help="prepared prompts of gate")
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    parser.add_argument("--counts", type=Path, required=True, help="token counts")
    parser.add_argument("--compressor", type=Path, nargs="+", required=True, help="METHOD.safetensors: pca, random")
    parser.add_argument("--compress_dim", type=int, required=True, help="code dimension")
    parser.add_argument("--adapter", type=Path, nargs="*", default=[], help="ARM/adapter.safetensors of trained arms")
    parser.add_argument("--output", type=Path, required=True, help="sums to write (Parquet); a summary goes beside it")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.arms import ArmInputs
    from latentwire.arms_table import ARMS
    from latentwire.compression.counts import load_counts
    from latentwire.compression.reconstruction import measure_arms
    from latentwire.compression.table import load_table
    from latentwire.data.prompts_table import read_prompts
    from latentwire.files import atomic_path, write_json
    from latentwire.provenance import write_provenance

    compressors = {path.stem: path for path in arguments.compressor}
    adapters = {path.parent.name: path for path in arguments.adapter}
    table, counts = load_table(arguments.table), load_counts(arguments.counts)
    inputs = {
        arm: ArmInputs(
            table,
            counts["pca"],
            compressors[ARMS[arm].compressor],
            arguments.compress_dim,
            adapters.get(arm),
        )
        for arm in arguments.arms
    }
    sums, summary = measure_arms(inputs, read_prompts(arguments.prompts), counts["train"].numpy())
    with atomic_path(arguments.output) as temporary:
        sums.to_parquet(temporary, index=False)
    write_json(arguments.output.with_suffix(".json"), summary)
    files = [arguments.prompts, arguments.table, arguments.counts, *arguments.compressor, *arguments.adapter]
    write_provenance(arguments.output, arguments, files)


if __name__ == "__main__":
    cli.run(main)
