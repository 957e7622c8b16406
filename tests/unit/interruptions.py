"""The workflow's programs as processes that tests interrupt.

One server process imports what is slow and forks for every run.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["transformers.models.llama.modeling_llama", "latentwire.standalone"])


@dataclass(frozen=True)
class Interruption:
    """A signal, so many seconds after the program's loop has begun."""

    signal: int
    seconds: float


def _run(script: str, arguments: Sequence[str], folder: Path) -> None:
    """What the process does: the program, in its folder, with a checkpoint many times a second."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from latentwire.training import checkpoint

    checkpoint.INTERVAL_SECONDS = 0.02
    sys.argv = [script, *arguments]
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def run(
    script: str, arguments: Sequence[str], folder: Path, interruption: Interruption | None = None
) -> tuple[int | None, float]:
    """Run a program of ``workflow/scripts`` in ``folder``, which keeps its ``state`` there and logs to ``log``.

    Returns:
        Its exit status (minus a signal's number where one ended it), and the seconds from its loop's begin to its end.
    """
    process = processes.Process(target=_run, args=(script, arguments, folder))
    before = {path: path.stat().st_ino for path in folder.glob("state/*/owner")}
    process.start()
    while process.is_alive():
        # The loop begins by writing its name anew.
        if any(before.get(path) != path.stat().st_ino for path in folder.glob("state/*/owner")):
            break
        time.sleep(0.001)
    begin = time.monotonic()
    if interruption is not None:
        process.join(interruption.seconds)
        if process.is_alive():
            os.kill(process.pid, interruption.signal)
    process.join()
    return process.exitcode, time.monotonic() - begin
