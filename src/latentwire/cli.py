"""What every program of the workflow shares: arguments, logging, threads, and errors without a traceback."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from latentwire.errors import InputError
from latentwire.stopping import EXIT_STOPPED, Stopped, StopRequest

log = logging.getLogger(__name__)


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows defaults, with ``--threads``."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument(
        "--threads", type=int, default=2, help="CPU threads; results are bit-identical at an equal number"
    )
    return made


def add_model_arguments(to: argparse.ArgumentParser) -> None:
    """``--model`` and ``--revision``."""
    to.add_argument("--model", required=True, help="model directory, or name on the hub")
    to.add_argument("--revision", help="commit of the model on the hub")


def add_optimiser_arguments(to: argparse._ActionsContainer, lr: float) -> None:
    """The flags of :class:`~latentwire.training.loop.OptimiserSettings`."""
    to.add_argument("--lr", type=float, default=lr, help="peak learning rate of AdamW")
    to.add_argument("--weight_decay", type=float, default=0.01, help="weight decay of matrices")
    to.add_argument("--warmup_fraction", type=float, default=0.05, help="share of the steps spent warming up")
    to.add_argument("--gradient_clip", type=float, default=1.0, help="largest gradient norm")


def add_stop_arguments(to: argparse._ActionsContainer) -> None:
    """``--runtime``."""
    to.add_argument(
        "--runtime",
        type=float,
        help="minutes that a Slurm job may take: shortly before they are over, keep the state and stop as a failure",
    )


def stop_request(arguments: argparse.Namespace) -> StopRequest:
    """What a long loop asks whether to stop; from now on it hears SIGTERM. Without Slurm nothing enforces a limit."""
    return StopRequest(arguments.runtime if "SLURM_JOB_ID" in os.environ else None).listen()


def add_bootstrap_arguments(to: argparse.ArgumentParser) -> None:
    """``--resamples`` and ``--bootstrap_seed``."""
    to.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of an interval")
    to.add_argument("--bootstrap_seed", type=int, default=0, help="seed of the resampling")


def optional(kind: Callable[[str], object]) -> Callable[[str], object]:
    """An argument type that reads ``none``, ``all`` and ``auto`` as None."""

    def read(text: str) -> object:
        return None if text.lower() in ("none", "all", "auto", "") else kind(text)

    read.__name__ = getattr(kind, "__name__", "value")
    return read


def set_threads(threads: int) -> None:
    """Limit torch and BLAS to ``threads``, and quieten libraries that would write to the log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    allotted = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if threads < allotted:  # Snakemake takes no more than the cores that it sees on the node
        log.warning("%d threads where Slurm gave %d: not the bits of a run with %d", threads, allotted, allotted)
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[library] = str(threads)
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def run(main: Callable[[], None]) -> None:
    """Run a program: log to standard error; an error that the user can mend ends it with its message alone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "transformers", "datasets", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        main()
    except (InputError, FloatingPointError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stopped:
        print(f"{Path(sys.argv[0]).name}: stopped: {stopped}", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
