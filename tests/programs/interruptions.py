"""The workflow's programs as processes that tests interrupt.

One server process imports what is slow and forks for every run.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from latentwire import provenance
from latentwire.resuming import stopping

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"

processes = multiprocessing.get_context("forkserver")
# Frozen last: a collection of garbage would copy the memory of every object of the libraries.
processes.set_forkserver_preload(["transformers.models.llama.modeling_llama", "latentwire.standalone", "frozen"])


@dataclass(frozen=True)
class Interruption:
    """A signal, so many seconds after the program has kept its state so many times."""

    signal: int
    after: int
    seconds: float = 0.0

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method``, which keeps state, with the signal after its call of that number."""
        calls = count(1)

        def watched(*arguments: Any) -> None:
            method(*arguments)
            if next(calls) == self.after:
                timer = threading.Timer(self.seconds, os.kill, (os.getpid(), self.signal))
                timer.daemon = True
                timer.start()

        return watched


@dataclass(frozen=True)
class Takeover:
    """Another process that owns the state from when the program has kept it so many times."""

    after: int

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method``, which keeps state; after its call of that number the state has another owner, and a copy."""
        calls = count(1)

        def watched(own: Any, *arguments: Any) -> None:
            method(own, *arguments)
            if next(calls) == self.after:
                for owner in Path("state").glob("*/owner"):
                    owner.write_text("another process")
                shutil.copytree("state", "state-then")

        return watched


@dataclass(frozen=True)
class KilledWithoutProvenance:
    """``kill -9`` when every result is written but the provenance."""

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method`` as it is."""
        provenance.write_provenance = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        return method


@dataclass(frozen=True)
class FullDisk:
    """A disk that is full from the checkpoint of this number on, half of which fits.

    Args:
        after: checkpoints that are written whole.
        error: how the writer says it.
    """

    after: int
    error: Exception

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method`` as it is."""
        from latentwire.resuming import checkpoint

        save_file, calls = checkpoint.save_file, count()

        def limited(tensors: Any, path: Path, metadata: Any) -> None:
            save_file(tensors, path, metadata=metadata)
            if next(calls) >= self.after:
                os.truncate(path, path.stat().st_size // 2)
                raise self.error

        checkpoint.save_file = limited
        return method


@dataclass(frozen=True)
class OutOfMemory:
    """Steps of Phase 2 that are cut as on a GPU, whose memory does not hold a single prompt from this step on."""

    after: int | None

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method``, which keeps state; it counts the steps."""
        from torch import OutOfMemoryError, is_grad_enabled

        from latentwire.training import phase2

        steps, read = count(1), phase2.PromptScorer.cross_entropy
        full = False

        def counted(*arguments: Any) -> None:
            nonlocal full
            method(*arguments)
            full = next(steps) == self.after

        def limited(*arguments: Any, **options: Any) -> Any:
            if full and is_grad_enabled():
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total of 79 GiB.")
            return read(*arguments, **options)

        phase2._in_parts = lambda device, processes: True
        phase2.PromptScorer.cross_entropy = limited
        return counted


Fault = Interruption | Takeover | KilledWithoutProvenance | FullDisk | OutOfMemory


def _run(script: str, arguments: Sequence[str], folder: Path, interruption: Fault | None) -> None:
    """What the process does: the program, in its folder, with a checkpoint after every step."""
    for number in (signal.SIGINT, signal.SIGHUP):  # which what starts the tests in the background may ignore
        signal.signal(number, signal.SIG_DFL)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from latentwire.evaluation.store import AnswerStore
    from latentwire.resuming import checkpoint

    checkpoint.INTERVAL_SECONDS = stopping.OWNER_SECONDS = 0
    if interruption is not None:
        checkpoint.Checkpoints.save = interruption.watch(checkpoint.Checkpoints.save)
        AnswerStore.keep = interruption.watch(AnswerStore.keep)
    sys.argv = [script, *arguments]
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def run(script: str, arguments: Sequence[str], folder: Path, interruption: Fault | None = None) -> int | None:
    """Run a program of ``workflow/scripts`` in ``folder``, which keeps its ``state`` there and logs to ``log``.

    Returns:
        Its exit status (minus a signal's number if one ended it).
    """
    process = processes.Process(target=_run, args=(script, arguments, folder, interruption))
    process.start()
    process.join()
    return process.exitcode
