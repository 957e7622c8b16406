"""How few bits before the model notices: write an experiment's frontier, and print it as Markdown.

frontier.json, frontier.svg and frontier.html in the experiment's folder hold every codec's bits per table parameter
against KL and F1 with intervals, the Pareto set, which codecs are shown to keep 99% of the uncompressed F1, and the
time that each takes. frontier-error.svg shows KL and F1 against FVU, of codecs and of random errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument(
        "--root", type=Path, required=True, help="the experiment's folder of results, with its verdict"
    )
    parser.add_argument(
        "--codec_files", type=Path, nargs="*", default=[], help="Python files of codecs of your own, to time them"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(1)  # which times to decode are of
    from latentwire.codecs.own import own_families
    from latentwire.decisions.frontier import frontier
    from latentwire.files import write_json, write_text
    from latentwire.report.frontier import error_figure, frontier_figure, frontier_lines, frontier_page

    own = [family for file in arguments.codec_files for family in own_families(file)]
    found = frontier(arguments.root, own)
    write_json(arguments.root / "frontier.json", found)
    write_text(arguments.root / "frontier.svg", frontier_figure(found))
    write_text(arguments.root / "frontier-error.svg", error_figure(found))
    write_text(arguments.root / "frontier.html", frontier_page(found))
    print("\n".join(frontier_lines(found)))


if __name__ == "__main__":
    cli.run(main)
