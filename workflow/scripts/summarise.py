"""An experiment's verdict in at most fifteen lines, on standard output."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--verdict", type=Path, required=True, help="verdict.json of the experiment")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.artefacts import read_json
    from latentwire.errors import InputError
    from latentwire.report.summary import summarise_verdict
    from latentwire.results import VERDICT_KEYS, Verdict

    if not arguments.verdict.exists():
        raise InputError(f"{arguments.verdict} does not exist: the experiment has no verdict yet")
    verdict: Verdict = read_json(arguments.verdict, VERDICT_KEYS)
    print("\n".join(summarise_verdict(verdict, str(arguments.verdict.parents[1]))))


if __name__ == "__main__":
    cli.run(main)
