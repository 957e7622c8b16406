"""Generate the answers of one or more arms on one split, with one load of the language model."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    parser.add_argument("--dtype", default="bfloat16", help="dtype of the frozen model")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to generate")
    parser.add_argument("--arms", nargs="+", required=True, help="arms to evaluate")
    parser.add_argument("--prompts", type=Path, required=True, help="prepared prompts of the split")
    parser.add_argument("--table", type=Path, required=True, help="embedding table")
    parser.add_argument("--counts", type=Path, required=True, help="token counts")
    parser.add_argument("--compressor", type=Path, nargs="*", default=[], help="METHOD.safetensors files: pca, random")
    parser.add_argument("--compress_dim", type=int, help="code dimension")
    parser.add_argument("--adapter", type=Path, nargs="*", default=[], help="ARM/adapter.safetensors of trained arms")
    parser.add_argument("--batch_size", type=int, default=32, help="prompts a batch")
    parser.add_argument("--max_new_tokens", type=int, default=32, help="cap of an answer, the same for all arms")
    parser.add_argument("--identity_samples", type=cli.optional(int), help="of the identity arm, or 'all'")
    parser.add_argument("--shard", type=int, default=0, help="this shard's number, from 0")
    parser.add_argument("--shards", type=int, default=1, help="shards; each takes whole batches")
    parser.add_argument("--final_reads", type=Path, help="where to record that the split 'final' is read")
    parser.add_argument("--configuration", help="hash of the frozen configuration, recorded with the read")
    cli.add_stop_arguments(parser)
    parser.add_argument("--state", type=Path, required=True, help="folder for the answers of interrupted runs")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (JSONL)")
    return parser.parse_args()


# What determines the answers besides the model, the inputs' content, threads, and the code.
SETTINGS = "arms compress_dim batch_size max_new_tokens identity_samples shard shards".split()


def own_state(arguments: argparse.Namespace, inputs: list[Path], model: list[str | None], device: str) -> Path:
    """Where this evaluation, and no other, keeps the answers that it has."""
    from latentwire.arms_table import arm_module
    from latentwire.fingerprint import fingerprint
    from latentwire.state import state_folder

    settings = {name: getattr(arguments, name) for name in SETTINGS}
    code = fingerprint(Path(__file__), *(arm_module(arm).__name__ for arm in arguments.arms))
    return state_folder(arguments.state, [settings, model], inputs, code, device)


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)
    cli.set_threads(arguments.threads)
    from latentwire.arms import ArmInputs, not_applicable
    from latentwire.compression.counts import load_counts
    from latentwire.compression.table import load_table
    from latentwire.data.prompts_table import read_prompts
    from latentwire.decisions.final_reads import record_read
    from latentwire.device import choose_device
    from latentwire.evaluation.evaluate import evaluate_arm
    from latentwire.evaluation.generate import Decoder
    from latentwire.evaluation.kept import KeptAnswers
    from latentwire.evaluation.questions import arm_batches
    from latentwire.files import write_jsonl
    from latentwire.lm import load_model, load_tokenizer, model_identity
    from latentwire.provenance import write_provenance

    if arguments.final_reads is not None:
        record_read(arguments.final_reads, arguments.configuration)
    device = choose_device(arguments.device)
    prompts = read_prompts(arguments.prompts)
    compressors = {path.stem: path for path in arguments.compressor}
    adapters = {path.parent.name: path for path in arguments.adapter}
    model = load_model(arguments.model, arguments.revision, arguments.dtype, device)
    tokenizer = load_tokenizer(arguments.model, arguments.revision)
    decoder = Decoder(model, tokenizer, arguments.max_new_tokens)
    table, counts = load_table(arguments.table), load_counts(arguments.counts)["pca"]
    inputs_used = [arguments.prompts, arguments.table, arguments.counts, *arguments.compressor, *arguments.adapter]
    identity = model_identity(arguments.model, arguments.revision, arguments.dtype, device)
    kept = KeptAnswers(own_state(arguments, inputs_used, identity, device.type))
    stop.take_over(kept.folder)
    records = []
    for arm in arguments.arms:
        method = "random" if arm == "random" else "pca"
        inputs = ArmInputs(table, counts, compressors.get(method), arguments.compress_dim, adapters.get(arm))
        if (reason := not_applicable(arm, inputs)) is not None:
            logging.warning("arm %s is left out: %s", arm, reason)
            continue
        batches = arm_batches(arm, prompts, arguments.batch_size, arguments.identity_samples)
        own = batches[arguments.shard :: arguments.shards]
        records += evaluate_arm(arm, inputs, decoder, prompts, own, kept=kept, stop=stop)
    write_jsonl(arguments.output, records)
    write_provenance(arguments.output, arguments, inputs_used, str(device))
    kept.clear()


if __name__ == "__main__":
    cli.run(main)
