"""Phase 1: train the adapter on reconstruction alone.

With prepared inputs (--train, --held_out, --table, --compressor) it trains from them and loads no language model.
Without them it runs by itself: data, PCA, Phase 1 and F1, on the embedded reader or on --model and --data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import AdapterSettings, Data, Evaluate, Model, Phase1

PREPARED = ("train", "held_out", "table", "compressor")


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    plan = parser.add_argument_group("the experiment")
    plan.add_argument("--samples", type=int, default=1000, help="training prompts (by itself)")
    cli.add_settings(plan, Phase1, "epochs", epochs=1)  # the plan's first command trains for one
    cli.add_settings(plan, Phase1, *(name for name in Phase1.model_fields if name != "epochs"))
    plan.add_argument("--compress_dim", type=int, default=512, help="code dimension K")
    plan.add_argument("--recon_weight", type=float, default=1.0, help="weight of the reconstruction loss")
    plan.add_argument("--ce_weight", type=float, default=0.0, help="must be 0 in Phase 1")
    plan.add_argument("--seed", type=int, default=0, help="of the data order")
    cli.add_settings(plan, AdapterSettings, "hidden")
    prepared = parser.add_argument_group("prepared inputs")
    prepared.add_argument("--train", type=Path, help="prepared training prompts")
    prepared.add_argument("--held_out", type=Path, help="prepared prompts for the log's metrics")
    prepared.add_argument("--table", type=Path, help="embedding table")
    prepared.add_argument("--compressor", type=Path, help="fitted compressor")
    prepared.add_argument("--state", type=Path, help="folder for checkpoints (default: OUTPUT/state)")
    cli.add_stop_arguments(prepared)
    own = parser.add_argument_group("a language model (by itself, or with --quick_eval_every)")
    own.add_argument("--model", help="model directory or hub name (default: the embedded reader)")
    own.add_argument("--revision", help="commit of the model on the hub")
    # Those of the embedded reader.
    cli.add_settings(own, Model, "dtype", "prompt_style", "system_prompt", dtype="float32", system_prompt=None)
    own.add_argument(
        "--data",
        default="demo",
        help="'demo', hub data set, folder of official JSON, or one file of it (cut by article)",
    )
    own.add_argument("--data_revision", help="commit of the data set on the hub")
    own.add_argument("--eval_samples", type=int, default=200, help="questions of the F1 at the end")
    cli.add_settings(own, Data, "max_prompt_tokens", max_prompt_tokens=512)
    cli.add_settings(own, Evaluate, "max_new_tokens")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
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
    missing = [name for name in PREPARED if getattr(arguments, name) is None]
    if missing and len(missing) < len(PREPARED):
        parser.error(f"prepared inputs come together; --{', --'.join(missing)} missing")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    stop = cli.stop_request(arguments)
    cli.set_threads(arguments.threads)
    alone = arguments.train is None
    if alone:
        from latentwire.standalone import prepare_inputs

        prepare_inputs(arguments, stop)
    from latentwire.device import choose_device
    from latentwire.provenance import write_provenance
    from latentwire.training.run_phase1 import TrainingFiles, run_phase1

    device = choose_device(arguments.device)
    files = TrainingFiles(
        arguments.train,
        arguments.held_out,
        arguments.table,
        arguments.compressor,
        arguments.state or arguments.output / "state",
        arguments.output,
    )
    quick_eval = None
    quick_eval_identity: list[object] = []
    if arguments.quick_eval_every:
        from latentwire.standalone import load_quick_evaluation

        quick_eval, quick_eval_identity = load_quick_evaluation(arguments, files, device)
    checkpoints = run_phase1(
        files,
        arguments.compress_dim,
        cli.section(arguments, Phase1),
        device,
        seed=arguments.seed,
        recon_weight=arguments.recon_weight,
        hidden=arguments.hidden,
        quick_eval=quick_eval,
        quick_eval_every=arguments.quick_eval_every,
        quick_eval_identity=quick_eval_identity,
        stop=stop,
    )
    write_provenance(arguments.output / "adapter.safetensors", arguments, files.inputs, str(device))
    if alone:
        from latentwire.standalone import report_f1

        report_f1(arguments, files, device, stop)
    checkpoints.clear()


if __name__ == "__main__":
    cli.run(main)
