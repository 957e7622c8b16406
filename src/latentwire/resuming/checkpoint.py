"""Resumable training state, without pickles: tensors in safetensors, everything else as JSON in its header.

A checkpoint holds whatever ``state_dict``-like nests of tensors, numbers, strings, lists and dictionaries the
caller names (model, optimiser, schedule), so that a run continued from it takes the very steps that the
uninterrupted run would have taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from latentwire.files import atomic_path
from latentwire.resuming.stopping import StopRequest

log = logging.getLogger(__name__)

_TENSOR = "__tensor__"
KEPT = 2
# Checkpoint interval: a crash loses at most this much work.
INTERVAL_SECONDS = 300.0


def _split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` with each tensor moved to ``tensors`` and replaced by a reference; JSON-ready."""
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)}{path}"  # the number keeps names apart whatever characters the keys hold
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        pairs = [[key, _split(item, f"{path}/{key}", tensors)] for key, item in value.items()]
        return {"__dict__": pairs}  # keeps integer keys, which JSON objects would turn into strings
    if isinstance(value, (list, tuple)):
        return [_split(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _digest(header: str, tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a checkpoint's content: safetensors does not notice when bytes have changed."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict) and _TENSOR in value:
        return tensors[value[_TENSOR]]
    if isinstance(value, dict):
        return {key: _join(item, tensors) for key, item in value["__dict__"]}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of torch's random number generators, of the CPU and of ``device``."""
    return {"cpu": torch.get_rng_state(), "gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Continue torch's random number generators from :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["gpu"], device)


class Checkpoints:
    """The checkpoints of one training run in one folder; the last two are kept.

    Args:
        folder: where they live. It must be the run's own: name it after a hash of everything that determines
            the result, so that another configuration never resumes from this one's state.
        stop: whether the run should stop; None for never.
        read_only: whether another process of the run writes them.
    """

    def __init__(self, folder: str | Path, stop: StopRequest | None = None, *, read_only: bool = False) -> None:
        self.folder = Path(folder)
        self._stop, self._read_only = stop or StopRequest(), read_only
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint, or the start, is long enough ago for another one."""
        return time.monotonic() >= self._saved_at + INTERVAL_SECONDS

    def check(self, keep: Callable[[], None]) -> None:
        """Go on, or call ``keep`` and stop: see :meth:`~latentwire.resuming.stopping.StopRequest.check`."""
        self._stop.check(keep)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write ``state`` as the checkpoint of ``step``, atomically, and remove all but the last two.

        A run continues from its newest readable checkpoint, so whatever is newer than ``step`` is unreadable.
        """
        self._saved_at = time.monotonic()
        if self._read_only:
            return
        tensors: dict[str, torch.Tensor] = {}
        header = json.dumps(_split(state, "", tensors))
        path = self.folder / f"step{step:09d}.safetensors"
        with atomic_path(path) as temporary:
            metadata = {"state": header, "step": str(step), "sha256": _digest(header, tensors)}
            save_file(tensors, temporary, metadata=metadata)
        readable = [other for other in self._paths() if other <= path]
        for other in set(self._paths()) - set(readable[-KEPT:]):
            other.unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """The newest readable checkpoint as ``(step, state)``, or None; unreadable ones are skipped with a warning."""
        for path in reversed(self._paths()):
            try:
                with safe_open(path, framework="pt") as stored:
                    metadata = stored.metadata()
                    tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
                if metadata["sha256"] != _digest(metadata["state"], tensors):
                    raise ValueError("its content is not what was saved")
                return int(metadata["step"]), _join(json.loads(metadata["state"]), tensors)
            except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
                log.warning("checkpoint %s can't be read (%s); trying the one before it", path, error)
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step*.safetensors"))
