"""Phase 1 by itself: data, PCA, training on reconstruction alone, and F1, without a workflow.

On the embedded reader and corpus, or on --model and --data. train_phase1.py trains from prepared files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from latentwire import cli
from latentwire.settings import AdapterSettings, Data, Evaluate, Model, Phase1

if TYPE_CHECKING:
    from latentwire.resuming.work import Work

READER = Path(__file__).resolve().parents[2] / "resources" / "reader"


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    plan = parser.add_argument_group("the experiment")
    plan.add_argument("--samples", type=int, default=1000, help="training prompts")
    cli.add_settings(plan, Phase1, *Phase1.model_fields, epochs=1)  # the plan's first command trains for one
    plan.add_argument("--compress_dim", type=int, default=512, help="code dimension K")
    plan.add_argument("--recon_weight", type=float, default=1.0, help="weight of the reconstruction loss")
    plan.add_argument("--ce_weight", type=float, default=0.0, help="must be 0 in Phase 1")
    plan.add_argument("--seed", type=int, default=0, help="of the data order")
    cli.add_settings(plan, AdapterSettings, *AdapterSettings.model_fields)
    source = parser.add_argument_group("model and data")
    source.add_argument("--model", default=str(READER), help="model directory, or name on the hub")
    source.add_argument("--revision", help="commit of the model on the hub")
    # The embedded reader's.
    cli.add_settings(
        source,
        Model,
        "dtype",
        "prompt_style",
        "system_prompt",
        "template_arguments",
        dtype="float32",
        system_prompt=None,
    )
    source.add_argument(
        "--data",
        default="demo",
        help="'demo', hub data set, folder of official JSON, or one file of it (cut by article)",
    )
    source.add_argument("--data_revision", help="commit of the data set on the hub")
    source.add_argument("--eval_samples", type=int, default=200, help="questions of the F1 at the end")
    cli.add_settings(source, Data, "max_prompt_tokens", max_prompt_tokens=480)
    cli.add_settings(source, Evaluate, "max_new_tokens")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
    cli.add_stop_arguments(parser)
    parser.add_argument("--output", type=Path, default=Path("results/adapter_only"), help="folder to write")
    arguments = parser.parse_args()
    if arguments.ce_weight != 0:
        parser.error(
            f"--ce_weight {arguments.ce_weight}: teacher forcing on answers trains an objective that is never "
            "evaluated (the answer is generated, not scored); Phase 1's loss is reconstruction alone. Use "
            "train_phase2.py for generation-aware training"
        )
    if arguments.recon_weight <= 0:
        parser.error(f"--recon_weight {arguments.recon_weight}: must be positive, it is the whole loss")
    return arguments


def train(arguments: argparse.Namespace, work: Work) -> None:
    """Prepare, train, write the adapter and its record, and report F1."""
    from latentwire.abilities import Lengths
    from latentwire.device import choose_device, described
    from latentwire.errors import InputError
    from latentwire.provenance import write_provenance
    from latentwire.standalone import prepare_inputs, report_f1
    from latentwire.training.run_phase1 import run_phase1

    if arguments.model == str(READER) and not READER.is_dir():
        raise InputError(f"the embedded reader is not at {READER}: run from a checkout, or give --model")
    device = choose_device(arguments.device)
    model = cli.section(arguments, Model).model_copy(update={"path": arguments.model})
    files = prepare_inputs(
        model,
        arguments.data,
        arguments.data_revision,
        arguments.output,
        samples=arguments.samples,
        eval_samples=arguments.eval_samples,
        lengths=Lengths(arguments.max_prompt_tokens, arguments.max_new_tokens),
        compress_dim=arguments.compress_dim,
        work=work,
    )
    run_phase1(
        files,
        arguments.compress_dim,
        cli.section(arguments, Phase1),
        device,
        seed=arguments.seed,
        recon_weight=arguments.recon_weight,
        hidden=arguments.hidden,
        work=work,
    )
    write_provenance(
        arguments.output / "adapter.safetensors", arguments, files.inputs, described(device), files.by_products
    )
    report_f1(model, files, max_new_tokens=arguments.max_new_tokens, device=device, work=work)


def main() -> None:
    arguments = parse_arguments()
    with cli.resumable(arguments, arguments.output / "state") as work:
        train(arguments, work)


if __name__ == "__main__":
    cli.run(main)
