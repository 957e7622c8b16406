"""Score a model on all questions of a SQuAD v1.1 file by the official definition, from the uncompressed text.

The figures compare with published ones on the same file. An interrupted run is continued by the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Evaluate, Model


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_arguments(parser)
    cli.add_settings(parser, Model, "dtype", dtype="float32")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to generate")
    parser.add_argument("--questions", type=Path, required=True, help="official v1.1 JSON")
    parser.add_argument("--articles", type=Path, help="JSON list of titles to score on (default: all of the file)")
    cli.add_settings(parser, Model, "prompt_style", "system_prompt", "template_arguments")
    cli.add_settings(parser, Evaluate, "batch_size", "max_new_tokens")
    cli.add_bootstrap_arguments(parser)
    cli.add_stop_arguments(parser)
    parser.add_argument("--answers", type=Path, default=Path("results/answers"), help="answers from before")
    parser.add_argument("--output", type=Path, required=True, help="folder for predictions.json and scores.json")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)
    cli.set_threads(arguments.threads)
    from latentwire.data.prompts import PromptRenderer
    from latentwire.device import choose_device
    from latentwire.evaluation.store import AnswerStore, decoding_identity
    from latentwire.files import write_json
    from latentwire.lm import load_model, load_tokenizer, model_identity
    from latentwire.readers.scoring import answer_questions, read_questions, scores

    device = choose_device(arguments.device)
    rows = read_questions(arguments.questions, arguments.articles)
    tokenizer = load_tokenizer(arguments.model, arguments.revision)
    renderer = PromptRenderer(tokenizer, arguments.prompt_style, arguments.system_prompt, arguments.template_arguments)
    identity = model_identity(arguments.model, arguments.revision, arguments.dtype, device)
    decoding = decoding_identity(
        arguments.model, arguments.revision, arguments.dtype, device, arguments.max_new_tokens
    )
    model = load_model(arguments.model, arguments.revision, arguments.dtype, device)
    predictions = answer_questions(
        model,
        renderer,
        rows,
        batch_size=arguments.batch_size,
        max_new_tokens=arguments.max_new_tokens,
        store=AnswerStore(arguments.answers, decoding, check=stop.check),
    )
    found = scores(rows, predictions, resamples=arguments.resamples, seed=arguments.bootstrap_seed)
    write_json(arguments.output / "predictions.json", predictions)
    write_json(arguments.output / "scores.json", found | {"model": identity, "questions": arguments.questions.name})
    for name in ("f1", "em"):
        print(f"{name}: {found[name]}")


if __name__ == "__main__":
    cli.run(main)
