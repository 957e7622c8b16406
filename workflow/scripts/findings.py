"""Print an experiment's findings as Markdown: F1, reconstruction beside it, differences, failures side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--root", type=Path, required=True, help="the experiment's folder of results, with its verdict"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.report.findings import findings

    print(findings(arguments.root), end="")


if __name__ == "__main__":
    cli.run(main)
