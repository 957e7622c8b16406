"""Generate the answers of arms on one split, and compare their predictions with the uncompressed model's.

The language model is loaded once, or not at all if every answer is in the store.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from latentwire import cli
from latentwire.settings import Evaluate, Model

if TYPE_CHECKING:
    from latentwire.resuming.work import Work


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    cli.add_settings(parser, Model, "dtype")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to generate")
    cli.add_variant_arguments(parser)
    cli.add_settings(parser, Evaluate, "batch_size", "max_new_tokens", "identity_samples", "divergence_samples")
    cli.add_settings(parser, Evaluate, "other_domain")
    parser.add_argument("--shard", type=int, default=0, help="this shard's number, from 0")
    parser.add_argument("--shards", type=int, default=1, help="shards; each takes whole batches")
    parser.add_argument("--final_reads", type=Path, help="where to record that the split 'final' is read")
    parser.add_argument("--configuration", help="hash of the frozen configuration, recorded with the read")
    cli.add_stop_arguments(parser)
    parser.add_argument("--state", type=Path, required=True, help="folder that says which process does this work")
    parser.add_argument("--answers", type=Path, required=True, help="store of answers from before and for later")
    parser.add_argument("--anew", action="store_true", help="generate answers that are there already once more")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (JSONL)")
    parser.add_argument("--divergence", type=Path, required=True, help="comparison of predictions to write (Parquet)")
    return parser.parse_args()


def evaluate(arguments: argparse.Namespace, work: Work) -> None:
    """Answer and compare, and write both with their record."""
    from latentwire.arms.loading import arm_inputs
    from latentwire.decisions.final_reads import record_read
    from latentwire.device import choose_device, described
    from latentwire.evaluation.run_evaluation import EvaluationFiles, FrozenModel, Shard, run_evaluation
    from latentwire.provenance import write_provenance

    if arguments.final_reads is not None:
        record_read(arguments.final_reads, arguments.configuration)
    device = choose_device(arguments.device)
    other = None if arguments.other_domain is None else Path(arguments.other_domain)
    files = EvaluationFiles(
        arguments.prompts, arguments.counts, other, arguments.answers, arguments.output, arguments.divergence
    )
    used = run_evaluation(
        files,
        arm_inputs(*cli.variant_arguments(arguments)),
        cli.section(arguments, Evaluate),
        FrozenModel(arguments.model, arguments.revision, arguments.dtype, device),
        shard=Shard(arguments.shard, arguments.shards),
        anew=arguments.anew,
        work=work,
    )
    inputs = [arguments.prompts, arguments.table, arguments.counts, *used, *([other] if other else [])]
    write_provenance(arguments.output, arguments, inputs, described(device), by_products=[arguments.divergence])


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable(arguments) as work:
        evaluate(arguments, work)


if __name__ == "__main__":
    cli.run(main)
