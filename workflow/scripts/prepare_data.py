"""Prepare the data: read the source, split by article, render and tokenise the prompts once."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    parser.add_argument("--prompt_style", choices=("chat", "plain"), default="chat", help="how prompts are rendered")
    parser.add_argument("--system_prompt", help="system message of the chat style")
    parser.add_argument("--source", choices=("hub", "local", "demo"), required=True, help="kind of data source")
    parser.add_argument("--path", help="data set on the hub")
    parser.add_argument("--data_revision", help="commit of the data set on the hub")
    parser.add_argument("--train_file", help="official v1.1 JSON: training set, or the single file to split")
    parser.add_argument("--dev_file", help="official v1.1 JSON: development set")
    parser.add_argument("--seed", type=int, default=0, help="of the splits and samples, and of the demo corpus")
    for split in ("train", "gate", "final"):
        parser.add_argument(f"--{split}_samples", type=cli.optional(int), help=f"questions in {split}, or 'all'")
    parser.add_argument("--max_prompt_tokens", type=int, required=True, help="longest prompt")
    parser.add_argument("--on_long_prompt", choices=("error", "trim"), default="error", help="for evaluation prompts")
    parser.add_argument("--output", type=Path, required=True, help="folder for the splits and the manifest")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.data.prepare import DataSettings, prepare
    from latentwire.data.prompts import PromptRenderer
    from latentwire.data.splits import SPLITS
    from latentwire.errors import InputError
    from latentwire.files import write_json
    from latentwire.lm import context_length, load_tokenizer
    from latentwire.provenance import write_provenance

    limit = context_length(arguments.model, arguments.revision)
    if arguments.max_prompt_tokens > limit:
        raise InputError(
            f"data.max_prompt_tokens {arguments.max_prompt_tokens} is more than the model's context, {limit} tokens"
        )
    settings = DataSettings(
        source=arguments.source,
        path=arguments.path,
        revision=arguments.data_revision,
        train_file=arguments.train_file,
        dev_file=arguments.dev_file,
        seed=arguments.seed,
        samples={split: getattr(arguments, f"{split}_samples") for split in SPLITS},
        max_prompt_tokens=arguments.max_prompt_tokens,
        on_long_prompt=arguments.on_long_prompt,
    )
    tokenizer = load_tokenizer(arguments.model, arguments.revision)
    renderer = PromptRenderer(tokenizer, arguments.prompt_style, arguments.system_prompt)
    manifest = prepare(settings, renderer, arguments.output)
    write_json(arguments.output / "manifest.json", manifest)
    write_provenance(arguments.output / "manifest.json", arguments, [arguments.train_file, arguments.dev_file])


if __name__ == "__main__":
    cli.run(main)
