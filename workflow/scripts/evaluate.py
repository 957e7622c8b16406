"""Generate the answers of arms on one split, and compare their predictions with the uncompressed model's.

The language model is loaded once, or not at all if every answer is in the store.
"""

from __future__ import annotations

import argparse
import logging
from functools import cache
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
    import pandas as pd

    from latentwire.arms.loading import arm_inputs
    from latentwire.arms_table import arm_row
    from latentwire.codecs.base import NotApplicable
    from latentwire.compression.counts import load_counts
    from latentwire.data.prompts_table import read_prompts
    from latentwire.decisions.final_reads import record_read
    from latentwire.device import choose_device, described
    from latentwire.errors import InputError
    from latentwire.evaluation.divergence import (
        DivergenceReader,
        forced_prompts,
        measure_divergence,
        measured_batches,
    )
    from latentwire.evaluation.evaluate import evaluate_arms
    from latentwire.evaluation.generate import Decoder
    from latentwire.evaluation.other_domain import measure_other_domain, passage_prompts
    from latentwire.evaluation.questions import arm_batches
    from latentwire.evaluation.rows import split_rows_of
    from latentwire.evaluation.store import AnswerStore, decoding_identity, measuring_identity
    from latentwire.files import atomic_path, write_jsonl
    from latentwire.lm import DTYPES, context_length, load_model, load_tokenizer
    from latentwire.provenance import write_provenance

    if arguments.final_reads is not None:
        record_read(arguments.final_reads, arguments.configuration)
    device = choose_device(arguments.device)
    prompts, tokenizer = read_prompts(arguments.prompts), load_tokenizer(arguments.model, arguments.revision)
    longest = int(prompts["input_ids"].map(len).max())
    if longest + arguments.max_new_tokens > (limit := context_length(arguments.model, arguments.revision)):
        raise InputError(
            f"a prompt of {longest} tokens and an answer of {arguments.max_new_tokens} (evaluate.max_new_tokens) do "
            f"not fit into the model's context of {limit}: lower data.max_prompt_tokens"
        )
    passages = None
    if arguments.other_domain is not None:
        passages = passage_prompts(Path(arguments.other_domain), tokenizer, limit)
    which, dtype = (arguments.model, arguments.revision, arguments.dtype, device), DTYPES[arguments.dtype]
    model = cache(lambda: load_model(*which))
    answers = AnswerStore(
        arguments.answers, decoding_identity(*which, arguments.max_new_tokens), check=work.check, anew=arguments.anew
    )
    measures = AnswerStore(arguments.answers, measuring_identity(*which), check=work.check, anew=arguments.anew)
    work.own(str(arguments.output))
    rows, batches, passage_rows = {}, {}, {}
    inputs_used = [arguments.prompts, arguments.table, arguments.counts]
    for variant, inputs, files in arm_inputs(*cli.variant_arguments(arguments)):
        inputs_used += files
        if isinstance(inputs, NotApplicable):
            logging.warning("arm %s is left out: %s", variant, inputs)
            continue
        every = arm_batches(variant.arm, prompts, arguments.batch_size, arguments.identity_samples)
        batches[variant] = every[arguments.shard :: arguments.shards]
        rows[variant] = split_rows_of(variant.arm, inputs, prompts, dtype)
        if passages is not None and arm_row(variant.arm).rebuilds:
            passage_rows[variant] = split_rows_of(variant.arm, inputs, passages, dtype)
    records = evaluate_arms(
        rows,
        lambda: Decoder(model(), tokenizer, arguments.max_new_tokens),
        prompts,
        batches,
        store=answers,
    )
    reader = cache(lambda: DivergenceReader(model()))
    table = measure_divergence(
        {variant: own for variant, own in rows.items() if own is not None},
        reader,
        prompts,
        forced_prompts(prompts, tokenizer),
        measured_batches(len(prompts), arguments.divergence_samples)[arguments.shard :: arguments.shards],
        load_counts(arguments.counts)["train"].numpy(),
        store=measures,
    )
    if passages is not None:
        inputs_used.append(Path(arguments.other_domain))
        shard = (arguments.shard, arguments.shards)
        read = {variant: own for variant, own in passage_rows.items() if own is not None}
        other = measure_other_domain(read, reader, passages, *shard, store=measures)
        table = pd.concat([part for part in (table, other) if len(part)] or [table], ignore_index=True)
    with atomic_path(arguments.divergence) as temporary:
        table.to_parquet(temporary, index=False)
    write_jsonl(arguments.output, records)
    write_provenance(arguments.output, arguments, inputs_used, described(device), by_products=[arguments.divergence])


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable(arguments) as work:
        evaluate(arguments, work)


if __name__ == "__main__":
    cli.run(main)
