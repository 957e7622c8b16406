"""Refuse to go on to training if the ceiling check failed and is not overridden."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--ceiling", type=Path, required=True, help="what the ceiling check found")
    parser.add_argument("--output", type=Path, required=True, help="file to write if training is allowed (JSON)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.decisions.requirements import require_ceiling
    from latentwire.files import write_json
    from latentwire.provenance import write_provenance

    require_ceiling(arguments.ceiling)
    write_json(arguments.output, {"train": True})
    write_provenance(arguments.output, arguments, [arguments.ceiling])


if __name__ == "__main__":
    cli.run(main)
