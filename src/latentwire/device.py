"""Where a stage computes."""

from __future__ import annotations

import torch

from latentwire.errors import InputError


def choose_device(wanted: str) -> torch.device:
    """``cpu``, ``cuda``, or ``auto`` (CUDA where there is one).

    Raises:
        InputError: ``cuda`` is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "a GPU is asked for (--device cuda) but torch sees none: check the job's GPU request "
            "(resources.<stage>.gpu), CUDA_VISIBLE_DEVICES, and that torch is a CUDA build"
        )
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def described(device: torch.device) -> str:
    """What of a device determines results: ``cpu``, or the GPU's name with the versions of CUDA and cuDNN."""
    if device.type == "cpu":
        return "cpu"
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name(device)}, {versions}"
