"""Prepare the data: read the source, split by article, render and tokenise the prompts once."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Data, Evaluate, Model


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    cli.add_settings(parser, Model, "prompt_style", "system_prompt", "template_arguments")
    cli.add_settings(parser, Data, *(name for name in Data.model_fields if name != "revision"))
    cli.add_settings(parser, Data, "revision", prefix="data_")
    cli.add_settings(parser, Evaluate, "max_new_tokens")
    parser.add_argument("--output", type=Path, required=True, help="folder for the splits and the manifest")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(arguments.threads)
    from latentwire.abilities import Lengths
    from latentwire.data.prepare import prepare
    from latentwire.data.prompts import PromptRenderer
    from latentwire.files import write_json
    from latentwire.lm import load_tokenizer, look
    from latentwire.provenance import write_provenance

    look(arguments.model, arguments.revision, Lengths(arguments.max_prompt_tokens, arguments.max_new_tokens))
    given = {"revision": arguments.data_revision}
    settings = Data.model_validate({name: getattr(arguments, name) for name in Data.model_fields} | given)
    tokenizer = load_tokenizer(arguments.model, arguments.revision)
    renderer = PromptRenderer(tokenizer, arguments.prompt_style, arguments.system_prompt, arguments.template_arguments)
    manifest = prepare(settings, renderer, arguments.output)
    write_json(arguments.output / "manifest.json", manifest)
    write_provenance(
        arguments.output / "manifest.json",
        arguments,
        [arguments.train_file, arguments.dev_file],
        by_products=sorted(arguments.output.glob("[!.]*.parquet")),
    )


if __name__ == "__main__":
    cli.run(main)
