"""Check the ceiling: does the uncompressed text reach the gate's threshold? Always succeeds; writes what it found."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Gate


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--scores", type=Path, required=True, help="scores of the original arms on gate")
    parser.add_argument("--prompts", type=Path, required=True, help="prepared prompts of the split")
    cli.add_settings(parser, Gate, "threshold", "override_ceiling")
    cli.add_bootstrap_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="findings to write (JSON)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.data.prompts_table import read_prompts
    from latentwire.decisions.ceiling import check_ceiling
    from latentwire.evaluation.scores import read_scores, require_arms
    from latentwire.files import write_json
    from latentwire.provenance import write_provenance

    scores = read_scores(arguments.scores, read_prompts(arguments.prompts, ["id"])["id"])
    require_arms(scores, arguments.scores, {"text": None})
    found = check_ceiling(
        scores,
        threshold=arguments.threshold,
        override=arguments.override_ceiling,
        resamples=arguments.resamples,
        seed=arguments.bootstrap_seed,
    )
    write_json(arguments.output, found)
    write_provenance(arguments.output, arguments, [arguments.scores, arguments.prompts])


if __name__ == "__main__":
    cli.run(main)
