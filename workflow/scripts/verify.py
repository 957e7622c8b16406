"""Say which artefacts of an experiment are not what their producers wrote; ends with 1 if any is not.

Every file is compared with the record beside it (<name>.provenance.json). What was made from another version of a file
is named too: put back from before, or left over from an earlier configuration.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--root", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--quick", action="store_true", help="of files above 1 MB compare the size alone")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.errors import InputError
    from latentwire.integrity import SMALL_BYTES, faults
    from latentwire.provenance import SUFFIX

    records = sum(1 for _ in arguments.root.rglob(f"[!.]*{SUFFIX}"))
    if not records:
        raise InputError(f"{arguments.root} holds no results: there is no record ({SUFFIX}) in it")
    found, older = faults(arguments.root, most=SMALL_BYTES if arguments.quick else None)
    for fault in found:
        print(fault)
    for fault in older:
        print(f"older: {fault}")
    if not found:
        print(f"{arguments.root}: all artefacts of {records} records are what was written")
    sys.exit(bool(found))


if __name__ == "__main__":
    cli.run(main)
