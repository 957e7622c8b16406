"""What every program of the workflow shares: arguments, logging, threads, and errors without a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType


def _without_a_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# Before the other imports, which take a third of a second, in which Ctrl-C may come.
sys.excepthook = _without_a_traceback

import argparse  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from typing import TYPE_CHECKING, NoReturn, TypeVar  # noqa: E402

from pydantic import ValidationError  # noqa: E402

from latentwire import integrity  # noqa: E402
from latentwire.arms_table import Variant  # noqa: E402
from latentwire.errors import InputError  # noqa: E402
from latentwire.resuming.stopping import EXIT_STOPPED, Stopped, StopRequest  # noqa: E402
from latentwire.settings import AdapterSettings, Model, Phase1, Phase2, Section, Statistics, wanted  # noqa: E402

if TYPE_CHECKING:
    from latentwire.processes import Processes
    from latentwire.resuming.work import Work

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Section)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of what has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.required or action.default is None else super()._get_help_string(action)


def parser(description: str | None, *, threads: bool = True) -> argparse.ArgumentParser:
    """An argument parser that shows defaults, with ``--threads`` for a program that computes."""
    made = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    if threads:
        made.add_argument(
            "--threads", type=int, default=2, help="CPU threads; results are bit-identical at an equal number"
        )
    return made


def add_model_arguments(to: argparse.ArgumentParser) -> None:
    """``--model`` and ``--revision``."""
    to.add_argument("--model", required=True, help="model directory, or name on the hub")
    to.add_argument("--revision", help="commit of the model on the hub")


def add_variant_arguments(to: argparse.ArgumentParser) -> None:
    """Which arms at which code dimensions and seeds, and what they may use."""
    to.add_argument("--root", required=True, help="the experiment's folder of results, which holds the codecs")
    to.add_argument(
        "--variants", type=Variant.parse, nargs="+", required=True, help="arms, as arm, arm:k or arm:k:seed"
    )
    to.add_argument("--prompts", type=Path, required=True, help="prepared prompts of the split")
    to.add_argument("--table", type=Path, required=True, help="embedding table")
    to.add_argument("--counts", type=Path, required=True, help="token counts")
    to.add_argument("--codec_files", type=Path, nargs="*", default=[], help="Python files of codecs of your own")


def variant_arguments(arguments: argparse.Namespace) -> tuple[str, list[Variant], Path, Path, list[Path]]:
    """What :func:`~latentwire.arms.loading.arm_inputs` takes of these arguments."""
    return arguments.root, arguments.variants, arguments.table, arguments.counts, arguments.codec_files


def _reader(section: type[Section], name: str) -> Callable[[str], object]:
    """Reads a flag as the configuration reads the setting of that name."""

    def read(text: str) -> object:
        try:
            return getattr(section.model_validate({name: text}), name)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(", or ".join(map(wanted, error.errors()))) from None

    return read


def add_settings(
    to: argparse._ActionsContainer, section: type[Section], *names: str, prefix: str = "", **defaults: object
) -> None:
    """Flags for settings of a section, with the type, bounds, default and description that it gives them.

    Args:
        to: the parser or group.
        section: of the configuration.
        names: its settings.
        prefix: of the flags' names.
        defaults: instead of the headline experiment's, for a program that runs without the configuration.
    """
    for name in names:
        field = section.model_fields[name]
        default = defaults.get(name, field.default)
        if field.annotation is bool:
            to.add_argument(f"--{prefix}{name}", action="store_true", help=field.description)
            continue
        to.add_argument(
            f"--{prefix}{name}",
            type=_reader(section, name),
            default=default,
            metavar=name.upper(),
            help=(field.description or "").replace("%", "%%"),
        )


def section(arguments: argparse.Namespace, kind: type[S]) -> S:
    """A section's settings from a program's flags of the same names."""
    given = vars(arguments)
    return kind.model_validate({name: given[name] for name in kind.model_fields if name in given})


def add_stop_arguments(to: argparse._ActionsContainer) -> None:
    """``--runtime``."""
    to.add_argument(
        "--runtime",
        type=float,
        help="Slurm time limit in minutes: shortly before it, save the state and exit with status 75",
    )


def add_training_arguments(to: argparse.ArgumentParser, *, codec: str | None) -> None:
    """What the trainings' programs ask for: files, code dimension, seed, device, and how long a job may take.

    Args:
        to: the program's parser.
        codec: which codec is read, for the help; None for none.
    """
    to.add_argument("--train", type=Path, required=True, help="prepared training prompts")
    to.add_argument("--held_out", type=Path, required=True, help="prepared prompts for the log's metrics")
    to.add_argument("--table", type=Path, required=True, help="embedding table")
    to.add_argument("--compressor", type=Path, required=True, help="fitted compressor")
    if codec is not None:
        to.add_argument("--codec", type=Path, required=True, help=f"folder of the {codec} read")
    to.add_argument("--compress_dim", type=int, help="code dimension; by default the compressor's")
    to.add_argument("--seed", type=int, default=0, help="of the data order")
    to.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
    add_stop_arguments(to)
    to.add_argument("--state", type=Path, required=True, help="folder for checkpoints of interrupted runs")
    to.add_argument("--output", type=Path, required=True, help="folder to write")


def add_phase1_arguments(to: argparse.ArgumentParser, codec: str) -> None:
    """What programs ask for that take Phase 1's steps: settings, how token types are weighted, and files.

    Args:
        to: the program's parser.
        codec: see :func:`add_training_arguments`.
    """
    add_settings(to, Phase1, *Phase1.model_fields)
    add_settings(to, AdapterSettings, *AdapterSettings.model_fields)
    to.add_argument(
        "--weighting",
        default="counts",
        choices=("counts", "root", "type"),
        help="what a token type weighs in an epoch: its count, the square root of that plus one, or as all others do",
    )
    add_training_arguments(to, codec=codec)


def add_phase2_arguments(to: argparse.ArgumentParser) -> None:
    """What programs ask for that take Phase 2's steps: the model, the gate's decision, and settings."""
    add_model_arguments(to)
    add_settings(to, Model, "dtype")
    to.add_argument("--decision", type=Path, help="gate decision (JSON); an error if it says not to run Phase 2")
    add_settings(to, Phase2, *Phase2.model_fields)


def stop_request(arguments: argparse.Namespace) -> StopRequest:
    """Whether to stop: from now on it hears SIGTERM. Without Slurm nothing enforces ``--runtime``."""
    return StopRequest(arguments.runtime if "SLURM_JOB_ID" in os.environ else None).listen()


@contextmanager
def resumable(arguments: argparse.Namespace, state: Path | None = None) -> Iterator[Work]:
    """The program's long work, with the threads it was given: it can be stopped, and the same command continues it.

    Args:
        arguments: of the program, with ``--runtime``.
        state: folder of what is unfinished; None for ``--state``.
    """
    stop = stop_request(arguments)
    set_threads(arguments.threads)
    from latentwire.resuming.work import resumable  # torch: seconds, in which a stop is heard already

    with resumable(state or arguments.state, stop) as work:
        yield work


@contextmanager
def resumable_together(arguments: argparse.Namespace) -> Iterator[tuple[Work, Processes]]:
    """The same for a training that ``torchrun`` may have started in several processes; the first one writes."""
    stop = stop_request(arguments)
    set_threads(arguments.threads)
    from latentwire.processes import Processes
    from latentwire.resuming.work import resumable

    processes = Processes.started()
    with processes.joined(), resumable(arguments.state, stop, follows=processes.follows) as work:
        stop.agree = processes.largest
        yield work, processes


def add_bootstrap_arguments(to: argparse.ArgumentParser) -> None:
    """``--resamples`` and ``--bootstrap_seed``."""
    add_settings(to, Statistics, "resamples")
    add_settings(to, Statistics, "seed", prefix="bootstrap_")


def set_threads(threads: int) -> None:
    """Prepare torch and BLAS: their threads, and what makes results right and repeatable on every device."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    allotted = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if threads < allotted:  # Snakemake takes no more than the cores that it sees on the node
        log.warning(
            "using %d threads although Slurm allocated %d: results differ in the last bits from a run with %d",
            threads,
            allotted,
            allotted,
        )
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[library] = str(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products; read when CUDA starts
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")  # no TF32
    torch.backends.cudnn.allow_tf32 = False
    # Given a mask, cuDNN's attention returns NaN gradients at some lengths, and plans anew for every shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    # As use_deterministic_algorithms(True, warn_only=True), which also imports torch's compiler: 1.5 s per program.
    torch.set_deterministic_debug_mode("warn")
    # Nothing reads memory before it is written, and filling it costs a pass over every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def run(main: Callable[[], None]) -> None:
    """Run a program: log to standard error; an error that the user can mend ends it with its message alone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "torch", "transformers", "datasets", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    integrity.forget()
    heard = _hear_interrupt()
    try:
        main()
    except SystemExit:
        raise
    except Stopped as stopped:
        print(f"{Path(sys.argv[0]).name}: stopped: {stopped}", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except BaseException as error:
        if heard or isinstance(error, KeyboardInterrupt):  # before or without work that keeps its state
            print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        _explain(error)


def _hear_interrupt() -> list[int]:
    """Note Ctrl-C, besides raising it: libraries turn an import that it ends into errors of their own."""
    heard: list[int] = []

    def note(number: int, _: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    return heard


def _explain(error: BaseException) -> NoReturn:
    """End with an error of one line, if it is one that a user can mend; raise any other."""
    if isinstance(error, (InputError, FloatingPointError)):
        _end(str(error))
    if isinstance(error, OSError):
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    if isinstance(error, MemoryError):
        _end(f"out of memory: {str(error) or 'an allocation failed'}. {NEED_LESS}")
    if isinstance(error, (RuntimeError, ImportError)):
        said = str(error).strip().splitlines()[0] if str(error).strip() else ""
        if type(error).__name__ == "OutOfMemoryError" or any(words in said for words in NO_MEMORY):
            _end(f"out of memory: {said} {NEED_LESS}")
    raise error


# As torch says it on a CPU, and the dynamic linker of a library that is imported.
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "failed to map segment")
NEED_LESS = (
    "What was finished is kept, and the next run continues: with phase2.activation_checkpointing or a smaller "
    "evaluate.batch_size, or on a machine or a GPU with more memory"
)


def _end(message: str) -> NoReturn:
    """End the program with an error of one line."""
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
