"""Graceful shutdown: long loops poll a :class:`StopRequest` and save their state before the program exits.

A run stops when it gets SIGTERM (a scheduler's time limit, preemption, a requeue), SIGINT (Ctrl-C) or SIGHUP (a closed
terminal), shortly before the time that it was given is over, and when another process has taken over its work: after a
crash of what had started it, the same work may be started again while the first process still runs. Standard library
only.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from latentwire.files import write_text

log = logging.getLogger(__name__)

# Reserved before the time limit for the current step, a checkpoint, and the job's start-up.
MARGIN_SECONDS = 180.0
# For short limits, the margin is at most this fraction.
MARGIN_SHARE = 0.25
# Seconds between two reads of the owner file, which may be on a shared file system.
OWNER_SECONDS = 10.0
# Exit status of a stopped program: "temporary failure", to be retried (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75


class Stopped(RuntimeError):
    """The run was told to stop before its end; its state is kept, and the same command continues it."""


class StopRequest:
    """Whether a run should stop. Without arguments and calls of :meth:`listen` and :meth:`take_over`: never.

    Args:
        runtime: minutes that this process may take from now on; None for no limit.
        clock: seconds, of which differences count.
    """

    def __init__(self, runtime: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline: float | None = None
        if runtime is not None:
            self._deadline = clock() + 60 * runtime - min(MARGIN_SECONDS, MARGIN_SHARE * 60 * runtime)
        self._runtime = runtime
        self._signalled: int | None = None
        self._owned: list[Path] = []
        self._name = f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex[:8]}\n"
        self._asked = -float("inf")
        # The processes of one run stop at the same step, or those that go on would wait for the others.
        self.agree: Callable[[int], int] = lambda wish: wish

    def listen(self) -> StopRequest:
        """Take signals as requests to stop from now on, in place of a sudden end; a second Ctrl-C is one."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and shells in the background ask for
                signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _: object) -> None:
        self._signalled = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    def take_over(self, folder: Path) -> None:
        """Own the work whose state is in ``folder``: a process that owned it until now stops without touching it.

        The owner file decides: whoever wrote it last owns the work. File locks are unreliable on shared file
        systems, and one held by a process that nobody waits for any more would keep everyone else out.
        """
        self._owned.append(folder / "owner")
        write_text(self._owned[-1], self._name)

    def check(self, keep: Callable[[], None] = lambda: None) -> None:
        """Go on, or keep the state and stop.

        Args:
            keep: writes what the same command continues from, if that is not written already.

        Raises:
            Stopped: after ``keep``; or without it, if another process owns the state now.
        """
        reason = self._reason()
        wish = self.agree(2 if self._taken_over() else int(reason is not None))
        if wish == 2:
            raise Stopped("another process has taken over this work: stopped without touching its state")
        if wish == 1:
            keep()
            reason = reason or "another process of this run was told to stop"
            raise Stopped(f"{reason}; the state is kept; rerun the same command to resume")

    def _reason(self) -> str | None:
        if self._signalled is not None:
            return f"received {signal.Signals(self._signalled).name}"
        if self._deadline is not None and self._clock() >= self._deadline:
            return f"the job's time limit of {self._runtime:g} minutes is close"
        return None

    def _taken_over(self) -> bool:
        if self._clock() < self._asked + OWNER_SECONDS:
            return False
        self._asked = self._clock()
        return any(map(self._is_anothers, self._owned))

    def _is_anothers(self, owner: Path) -> bool:
        try:
            return owner.read_text(encoding="utf-8") != self._name
        except FileNotFoundError:  # removed by the process that owned it before, which finished just now
            return False
