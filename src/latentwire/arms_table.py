"""Which module holds which arm, and which arms are evaluated together. Standard library only."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

ARM_MODULES = {
    "text": "original",
    "identity": "original",
    "mean": "floors",
    "question": "floors",
    "pca": "linear",
    "snap": "nearest",
    "snap_d": "nearest",
    "quant": "quantised",
    "phase1": "adapted",
    "random": "adapted",
    "phase2": "adapted",
    "control": "adapted",
}
# Arms that share one load of the language model.
GROUP_ARMS = {
    "original": ("text", "identity", "mean", "question"),
    "linear": ("pca", "snap", "snap_d", "quant"),
    "phase1": ("phase1", "random"),
    "phase2": ("phase2", "control"),
}


def arm_module_name(arm: str) -> str:
    """The dotted name of the module that holds an arm.

    Raises:
        KeyError: there is no such arm.
    """
    return f"latentwire.arms.{ARM_MODULES[arm]}"


def arm_module(arm: str) -> ModuleType:
    """The module that holds an arm."""
    return import_module(arm_module_name(arm))
