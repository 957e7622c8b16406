"""The verdict on an experiment: criteria, outcome, and for a failure the evidence and the next commands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from latentwire import cli
from latentwire.settings import AdapterSettings, Phase1, Verdict


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--root", required=True, help="the experiment's folder of results")
    parser.add_argument("--compress_dims", type=int, nargs="+", required=True, help="code dimensions, primary first")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="training seeds")
    parser.add_argument(
        "--exploratory_seeds", type=int, nargs="+", help="those of the other code dimensions (default: the same)"
    )
    cli.add_settings(parser, Verdict, "cosine", "fvu")
    # For the commands that a failure proposes.
    cli.add_settings(parser, Phase1, "epochs")
    cli.add_settings(parser, AdapterSettings, "hidden")
    parser.add_argument("--configuration", required=True, help="hash of the frozen configuration")
    parser.add_argument("--command", required=True, help="how this experiment is started, but for its --config")
    parser.add_argument("--overrides", type=json.loads, default={}, help="its --config, as JSON")
    cli.add_bootstrap_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="verdict.json to write; verdict.md goes beside it")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.decisions.final_validation import validate
    from latentwire.decisions.verdict import VerdictSettings
    from latentwire.files import write_json, write_text
    from latentwire.integrity import files_read
    from latentwire.provenance import write_provenance
    from latentwire.report.verdict_text import render_verdict

    settings = VerdictSettings(
        cosine=arguments.cosine,
        fvu=arguments.fvu,
        resamples=arguments.resamples,
        seed=arguments.bootstrap_seed,
        experiment=Path(arguments.root).name,
        command=arguments.command,
        overrides=arguments.overrides,
        epochs=arguments.epochs,
        hidden=arguments.hidden,
    )
    others = arguments.exploratory_seeds or arguments.seeds
    verdict = validate(
        arguments.root,
        arguments.compress_dims,
        {k: others if index else arguments.seeds for index, k in enumerate(arguments.compress_dims)},
        arguments.configuration,
        settings,
    )
    write_text(arguments.output.with_suffix(".md"), render_verdict(verdict))
    write_json(arguments.output, verdict)
    write_provenance(arguments.output, arguments, files_read(), by_products=[arguments.output.with_suffix(".md")])


if __name__ == "__main__":
    cli.run(main)
