"""The device that a stage computes on."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import torch

from latentwire.errors import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")

_held: list[IO[str]] = []


def choose_device(wanted: str) -> torch.device:
    """``cpu``, ``cuda``, or ``auto`` (CUDA if there is one).

    Raises:
        InputError: ``cuda`` is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "a GPU is asked for (--device cuda) but torch sees none: check the job's GPU request "
            "(resources.<stage>.gpu), CUDA_VISIBLE_DEVICES, and that torch is a CUDA build"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if (own := _own_gpu()) is None:
        return torch.device("cuda")
    torch.cuda.set_device(own)
    return torch.device("cuda", own)


def _own_gpu() -> int | None:
    """The number of this process's GPU among those that it sees; None if it sees one.

    A process that torchrun started has the one of its local rank. Others on the same machine, such as jobs of a
    workflow that run at the same time, take the first that is free, or share the first.
    """
    if (rank := os.environ.get("LOCAL_RANK")) is not None:
        return int(rank)
    count = torch.cuda.device_count()
    return next((index for index in range(count) if _taken(index)), 0) if count > 1 else None


def _taken(index: int) -> bool:
    """Whether a GPU was free, and is this process's from now on, until it ends."""
    name = f"latentwire-{os.getuid()}-{torch.cuda.get_device_properties(index).uuid}.lock"
    file = open(Path(tempfile.gettempdir()) / name, "w")  # noqa: SIM115, closed by the process's end
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held.append(file)
    return True


def in_parts_that_fit(attempt: Callable[[int], T], parts: int, most: int, told: Callable[[int], str]) -> tuple[T, int]:
    """What ``attempt`` makes of work in so many parts, which are doubled while a GPU's memory does not suffice.

    Args:
        attempt: does the work in a number of parts.
        parts: the first number.
        most: the largest number.
        told: what the log says of a new number.

    Returns:
        The result, and its number of parts.

    Raises:
        torch.OutOfMemoryError: the most parts are too few.
    """
    while True:
        try:
            return attempt(parts), parts
        except torch.OutOfMemoryError:
            if parts >= most:
                raise
        # Outside of the handler, whose error holds what the attempt has allocated.
        parts = min(2 * parts, most)
        torch.cuda.empty_cache()
        log.warning("out of GPU memory: %s", told(parts))


def described(device: torch.device) -> str:
    """What of a device determines results: ``cpu``, or the GPU's name with the versions of CUDA and cuDNN."""
    if device.type == "cpu":
        return "cpu"
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name(device)}, {versions}"
