"""Score predictions: official SQuAD F1 and EM, one row a question and arm."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Evaluate


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="predictions of all shards")
    parser.add_argument("--prompts", type=Path, required=True, help="prepared prompts of the split")
    cli.add_settings(parser, Evaluate, "batch_size", "identity_samples")
    parser.add_argument("--output", type=Path, required=True, help="scores to write (Parquet)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.data.prompts_table import read_prompts
    from latentwire.evaluation.scores import score_predictions
    from latentwire.files import atomic_path, read_jsonl
    from latentwire.provenance import write_provenance

    records = [record for path in arguments.predictions for record in read_jsonl(path)]
    prompts = read_prompts(arguments.prompts)
    scored = score_predictions(records, prompts, arguments.batch_size, arguments.identity_samples)
    with atomic_path(arguments.output) as temporary:
        scored.to_parquet(temporary, index=False)
    write_provenance(arguments.output, arguments, [*arguments.predictions, arguments.prompts])


if __name__ == "__main__":
    cli.run(main)
