"""Where unfinished work keeps its state: in a folder named after everything that determines the work's result.

So the same command finds it again, and a command that would give other bytes never continues from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from latentwire.files import hash_of, sha256_of
from latentwire.provenance import library_versions


def state_folder(root: Path, settings: Any, inputs: Iterable[Path], code: str, device: str = "cpu") -> Path:
    """The folder under ``root`` of one piece of work.

    Args:
        root: of all states.
        settings: JSON value of what determines the result besides the other arguments and the libraries' versions,
            which are always part of the name.
        inputs: files whose content determines it.
        code: fingerprint of the logic (:func:`~latentwire.fingerprint.fingerprint`).
        device: kind of device; on the CPU torch's number of threads is part of the name, since sums depend on it.
    """
    where = [device, torch.get_num_threads() if device == "cpu" else None]
    work = [settings, [sha256_of(path) for path in inputs], code, where, library_versions()]
    return root / hash_of(work)[:16]
