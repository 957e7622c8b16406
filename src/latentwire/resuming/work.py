"""One program's long work: it stops when it is told to, and what is unfinished waits for the same command.

Unfinished work keeps its state in a folder named after everything that determines the result: the same command finds
it again, and a command that would give other bytes never continues from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from latentwire.files import hash_of
from latentwire.integrity import digest
from latentwire.provenance import library_versions
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.resuming.stopping import StopRequest


class Work:
    """Long work that can be stopped and continued; :func:`resumable` makes one for a program.

    Args:
        root: folder of all states.
        stop: whether to stop; None for never.
        follows: whether another process of the same run owns the state and writes it.
    """

    def __init__(self, root: Path, stop: StopRequest | None = None, *, follows: bool = False) -> None:
        self._root, self._follows = root, follows
        self._stop = stop or StopRequest()
        self._owned: list[Path] = []

    def check(self, keep: Callable[[], None] = lambda: None) -> None:
        """Go on, or call ``keep`` and stop: see :meth:`~latentwire.resuming.stopping.StopRequest.check`."""
        self._stop.check(keep)

    def own(self, identity: Any) -> Path:
        """The state's folder of the work with this identity (a JSON value), owned by this process from now on."""
        folder = self._root / hash_of(identity)[:16]
        if self._follows:
            return folder
        self._stop.take_over(folder)
        self._owned.append(folder)
        return folder

    def checkpoints(
        self, settings: Any, inputs: Iterable[Path] = (), *, code: str, device: str = "cpu"
    ) -> Checkpoints:
        """The checkpoints of one training.

        Args:
            settings: JSON value of what determines the result besides the other arguments and the libraries' versions,
                which are always part of the identity.
            inputs: files whose content determines it.
            code: fingerprint of the logic (:func:`~latentwire.fingerprint.fingerprint`).
            device: what of it determines the result; on the CPU torch's number of threads is part of the identity
                too, since sums depend on it.
        """
        where = [device, torch.get_num_threads() if device == "cpu" else None]
        identity = [settings, [digest(path) for path in inputs], code, where, library_versions()]
        return Checkpoints(self.own(identity), self._stop, read_only=self._follows)

    def finish(self) -> None:
        """Remove the state of what is done."""
        for folder in self._owned:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def resumable(root: Path, stop: StopRequest | None = None, *, follows: bool = False) -> Iterator[Work]:
    """Long work whose state is removed if all of it succeeds, and kept if it does not.

    Args:
        root, stop, follows: see :class:`Work`.
    """
    work = Work(root, stop, follows=follows)
    yield work
    work.finish()
