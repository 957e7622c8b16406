"""Score predictions: F1 and EM, one row per question and arm; and join the shards' comparisons."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from latentwire import cli
from latentwire.settings import Evaluate


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="predictions of all shards")
    parser.add_argument("--prompts", type=Path, required=True, help="prepared prompts of the split")
    parser.add_argument("--divergence", type=Path, nargs="+", required=True, help="comparisons of all shards")
    cli.add_settings(parser, Evaluate, "batch_size", "identity_samples", "scoring")
    parser.add_argument("--output", type=Path, required=True, help="scores to write (Parquet)")
    parser.add_argument("--output_divergence", type=Path, required=True, help="comparisons to write (Parquet)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    import pandas as pd

    from latentwire.artefacts import read_jsonl, read_measures
    from latentwire.data.prompts_table import read_prompts
    from latentwire.evaluation.scores import score_predictions, scoring_warnings
    from latentwire.files import atomic_path
    from latentwire.provenance import write_provenance

    records = [record for path in arguments.predictions for record in read_jsonl(path)]
    prompts = read_prompts(arguments.prompts)
    for warning in scoring_warnings(prompts, arguments.scoring):
        logging.warning(warning)
    scored = score_predictions(records, prompts, arguments.batch_size, arguments.identity_samples, arguments.scoring)
    divergence = pd.concat([read_measures(path) for path in arguments.divergence], ignore_index=True)
    for path, table in ((arguments.output, scored), (arguments.output_divergence, divergence)):
        with atomic_path(path) as temporary:
            table.to_parquet(temporary, index=False)
    inputs = [*arguments.predictions, *arguments.divergence, arguments.prompts]
    write_provenance(arguments.output, arguments, inputs, by_products=[arguments.output_divergence])


if __name__ == "__main__":
    cli.run(main)
