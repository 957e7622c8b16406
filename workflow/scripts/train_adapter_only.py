"""Phase 1: train the adapter on reconstruction alone.

With prepared inputs (--train, --held_out, --table, --compressor) it trains from them and loads no language model.
Without them it runs by itself: data, PCA, Phase 1 and F1, on the embedded reader or on --model and --data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli

PREPARED = ("train", "held_out", "table", "compressor")


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    plan = parser.add_argument_group("the experiment")
    plan.add_argument("--samples", type=int, default=1000, help="training prompts (by itself; default 1000)")
    plan.add_argument("--epochs", type=int, default=1, help="passes over them (default 1)")
    plan.add_argument("--batch_size", type=int, default=32, help="prompts a step (default 32)")
    plan.add_argument("--compress_dim", type=int, default=512, help="code dimension K (default 512)")
    plan.add_argument("--recon_weight", type=float, default=1.0, help="weight of the reconstruction loss (default 1)")
    plan.add_argument("--smoothing", type=float, default=0.0, help="occurrences of every vocabulary token an epoch")
    plan.add_argument("--ce_weight", type=float, default=0.0, help="must be 0 in Phase 1")
    plan.add_argument("--seed", type=int, default=0, help="of the data order (default 0)")
    plan.add_argument("--hidden", type=cli.optional(int), help="hidden width of the adapter (default D/2)")
    cli.add_optimiser_arguments(plan, lr=1e-3)
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
    own.add_argument("--dtype", default="float32", help="dtype of the language model (default float32)")
    own.add_argument("--prompt_style", choices=("chat", "plain"), default="chat", help="how prompts are rendered")
    own.add_argument("--system_prompt", help="system message of the chat style")
    own.add_argument(
        "--data",
        default="demo",
        help="'demo', hub data set, folder of official JSON, or one file of it (cut by article)",
    )
    own.add_argument("--data_revision", help="commit of the data set on the hub")
    own.add_argument("--eval_samples", type=int, default=200, help="questions of the F1 at the end (default 200)")
    own.add_argument("--max_prompt_tokens", type=int, default=512, help="longest prompt (default 512)")
    own.add_argument("--max_new_tokens", type=int, default=32, help="cap of an answer (default 32)")
    own.add_argument(
        "--quick_eval_every", type=int, default=0, help="steps between quick F1 evaluations (default: none)"
    )
    own.add_argument("--quick_eval_questions", type=int, default=100, help="questions of one (default 100)")
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
    if not 0 <= arguments.smoothing < float("inf"):
        parser.error(f"--smoothing {arguments.smoothing}: must be a finite number of occurrences, 0 or more")
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
    from latentwire.training.loop import OptimiserSettings
    from latentwire.training.phase1 import Phase1Settings
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
        from latentwire.evaluation.quick import load_quick_evaluation

        quick_eval, quick_eval_identity = load_quick_evaluation(arguments, files, device)
    optimiser = OptimiserSettings(
        arguments.lr, arguments.weight_decay, arguments.warmup_fraction, arguments.gradient_clip
    )
    checkpoints = run_phase1(
        files,
        arguments.compress_dim,
        Phase1Settings(
            arguments.epochs,
            arguments.batch_size,
            arguments.seed,
            arguments.recon_weight,
            optimiser,
            arguments.smoothing,
        ),
        device,
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
