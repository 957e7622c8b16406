"""One self-contained HTML page: verdict, arms with intervals, learning curves, spectrum, examples, configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--root", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--output", type=Path, required=True, help="page to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.files import write_text
    from latentwire.integrity import files_read
    from latentwire.provenance import write_provenance
    from latentwire.report.page import render_report

    write_text(arguments.output, render_report(arguments.root))
    write_provenance(arguments.output, arguments, files_read())


if __name__ == "__main__":
    cli.run(main)
