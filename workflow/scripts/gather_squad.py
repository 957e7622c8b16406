"""Gather the SQuAD v1.1 files of an experiment: the development set, and the named articles of the training set.

From a folder that holds the official files (train-v1.1*.json, dev-v1.1*.json), or from the hub. The files written are
the same wherever the questions come from. Files that are there already are left alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--source", default="hub", help="folder of official v1.1 files, or 'hub'")
    parser.add_argument("--path", default="rajpurkar/squad", help="data set on the hub")
    parser.add_argument("--revision", default="7b6d24c440a36b6815f21b70d25016731768db1f", help="its commit")
    parser.add_argument("--articles", type=Path, help="JSON list of training titles (default: all of them)")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.json and dev.json")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.data.gather import gather

    files = gather(
        None if arguments.source == "hub" else Path(arguments.source),
        arguments.output,
        articles=arguments.articles,
        path=arguments.path,
        revision=arguments.revision,
    )
    for name, sha256 in files.items():
        print(f"{arguments.output / name}: sha256 {sha256}")


if __name__ == "__main__":
    cli.run(main)
