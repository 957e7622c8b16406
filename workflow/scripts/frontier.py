"""How few bits before the model notices: write an experiment's frontier, and print it as Markdown.

frontier.json, frontier.svg and frontier.html in the experiment's folder hold every codec's bits per table parameter
against KL and F1 with intervals, the Pareto set, and which codecs are shown to keep 99% of the uncompressed F1.
frontier-error.svg shows KL and F1 against FVU, of codecs and of random errors.
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
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.decisions.frontier import frontier
    from latentwire.files import write_json, write_text
    from latentwire.report.frontier import error_figure, frontier_figure, frontier_lines, frontier_page

    found = frontier(arguments.root)
    write_json(arguments.root / "frontier.json", found)
    write_text(arguments.root / "frontier.svg", frontier_figure(found))
    write_text(arguments.root / "frontier-error.svg", error_figure(found))
    write_text(arguments.root / "frontier.html", frontier_page(found))
    print("\n".join(frontier_lines(found)))


if __name__ == "__main__":
    cli.run(main)
