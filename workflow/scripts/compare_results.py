"""Say what differs between two folders of results; ends with 1 if anything does.

A change that is not meant to change results leaves every adapter, prediction, score and verdict as it is: keep a copy
of results/<experiment>, run the changed code, compare. A file that only moved is no difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("first", type=Path, help="results/<experiment> of one run")
    parser.add_argument("second", type=Path, help="that of another")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.errors import InputError
    from latentwire.report.comparison import compared_files, differences

    for folder in (arguments.first, arguments.second):
        if not folder.is_dir() or not compared_files(folder):
            raise InputError(f"{folder} holds no results")
    found = differences(arguments.first, arguments.second)
    print("\n".join(found) if found else f"no difference in {len(compared_files(arguments.first))} files")
    sys.exit(bool(found))


if __name__ == "__main__":
    cli.run(main)
