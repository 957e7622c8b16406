"""The command ``latentwire``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from latentwire import cli
from latentwire.arms_table import Variant
from latentwire.errors import InputError


def prediction_file(text: str) -> tuple[Path, Variant | None]:
    """A file of predictions, and which of its arms: ``FILE`` or ``FILE@ARM``."""
    name, at, arm = text.rpartition("@")
    if not at or Path(text).exists():
        return Path(text), None
    return Path(name), variant(arm)


def variant(text: str) -> Variant:
    """An arm at its code dimension and seed."""
    try:
        return Variant.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="latentwire", description="Tools beside the workflow.")
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser(
        "compare",
        help="paired comparison of two files of predictions, clustered by article",
        description="Is A worse than B on the same questions? The paired difference with an interval over articles, "
        "whether A is no worse by a margin, and the smallest loss that these questions can show.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    kinds = "JSON lines, samples of lm-evaluation-harness, or {id: answer}; FILE@ARM for one arm of several"
    compare.add_argument("a", metavar="A", type=prediction_file, help=f"predictions: {kinds}")
    compare.add_argument("b", metavar="B", type=prediction_file, help="the same of what A is compared with")
    compare.add_argument("--questions", type=Path, help="official SQuAD v1.1 file with references and articles")
    compare.add_argument("--metric", default="f1", help="score of each line; f1, exact_match: computed if missing")
    compare.add_argument("--margin", type=float, default=1.0, help="loss in points up to which A is no worse")
    compare.add_argument("--confidence", type=float, default=0.95, help="of the two-sided intervals")
    cli.add_bootstrap_arguments(compare)
    compare.add_argument("--output", type=Path, help="JSON file to write beside")
    compare.set_defaults(run=run_compare)
    kl = commands.add_parser(
        "kl",
        help="paired ratio of two arms' KL from the uncompressed model, clustered by article",
        description="By what factor does A move the uncompressed model's predictions more than B, on the same "
        "positions of the same questions? With an interval over articles.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    kl.add_argument("file", metavar="FILE", type=Path, help="an evaluation's divergence.parquet")
    kl.add_argument("a", metavar="A", type=variant, help="arm: arm, arm:k, arm:seed or arm:k:seed")
    kl.add_argument("b", metavar="B", type=variant, help="what it is compared with, likewise")
    kl.add_argument("--subset", default="prompt", help="positions: prompt, answer, unseen, other_domain, …")
    kl.add_argument("--confidence", type=float, default=0.95, help="of the two-sided interval")
    cli.add_bootstrap_arguments(kl)
    kl.set_defaults(run=run_kl)
    return parser.parse_args()


def run_compare(arguments: argparse.Namespace) -> None:
    """Print a comparison of predictions, and write it if asked to."""
    from latentwire.evaluation.paired import compare, described, read_scores, references_of
    from latentwire.files import write_json

    if not 0 < arguments.confidence < 1 or arguments.margin < 0:
        raise InputError("--confidence is between 0 and 1, and --margin is not negative")
    references = references_of(arguments.questions)
    a, b = (read_scores(path, arm, arguments.metric, references) for path, arm in (arguments.a, arguments.b))
    found = compare(
        a,
        b,
        margin=arguments.margin / 100,
        confidence=arguments.confidence,
        resamples=arguments.resamples,
        seed=arguments.bootstrap_seed,
    )
    print(described(found))
    if arguments.output is not None:
        write_json(arguments.output, json.loads(json.dumps(asdict(found) | {"verdict": found.verdict})))


def run_kl(arguments: argparse.Namespace) -> None:
    """Print a comparison of KL."""
    from latentwire.evaluation.paired_kl import compare_kl, described_kl

    if not 0 < arguments.confidence < 1:
        raise InputError("--confidence is between 0 and 1")
    found = compare_kl(
        arguments.file,
        arguments.a,
        arguments.b,
        arguments.subset,
        confidence=arguments.confidence,
        resamples=arguments.resamples,
        seed=arguments.bootstrap_seed,
    )
    print(described_kl(arguments.a, arguments.b, found))


def main() -> None:
    arguments = parse_arguments()
    cli.run(lambda: arguments.run(arguments))


if __name__ == "__main__":
    main()
