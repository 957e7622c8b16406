"""Arms' modules by name. No fingerprint follows this: rules and evaluations name their arms' modules themselves."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from latentwire.arms_table import arm_module_name


def arm_module(arm: str) -> ModuleType:
    """The module that holds an arm."""
    return import_module(arm_module_name(arm))
