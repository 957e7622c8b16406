"""What training asks of earlier decisions: it starts only if the ceiling and the gate allow it.

Separate from the modules that decide, so that a change of scores or intervals does not retrain anything.
"""

from __future__ import annotations

from pathlib import Path

from latentwire.artefacts import read_json
from latentwire.errors import InputError
from latentwire.integrity import remake
from latentwire.results import Ceiling, required_keys


def require_ceiling(path: str | Path) -> Ceiling:
    """The ceiling check's findings.

    Raises:
        InputError: it failed and is not overridden.
    """
    found: Ceiling = read_json(path, required_keys(Ceiling))
    if not found["passed"] and not found["override"]:
        value = found["arms"]["text"]["f1"]["estimate"]
        raise InputError(
            f"the ceiling is too low ({path}): the uncompressed text reaches F1 {value:.3f}, below the gate's "
            f"{found['threshold']:.2f}, so no compressed prompt can be expected to pass. Look at the prompt first "
            "(model.prompt_style, model.system_prompt, evaluate.max_new_tokens) and at the predictions beside the "
            "scores; to train all the same, set gate.override_ceiling to true: the verdict will show it"
        )
    return found


def phase2_wanted(decision: str | Path) -> bool:
    """Whether the gate sends the experiment to Phase 2.

    Raises:
        InputError: the file is no decision, or not the one that was written.
    """
    found = read_json(decision, frozenset({"run_phase2"}))["run_phase2"]
    if not isinstance(found, bool):
        raise InputError(f"{decision}: run_phase2 is {found!r}, not true or false. Decide again: {remake(decision)}")
    return found


def require_phase2(decision: str | Path) -> None:
    """Refuse to train Phase 2 if the gate said not to.

    Raises:
        InputError: the decision is not to run Phase 2.
    """
    if not phase2_wanted(decision):
        raise InputError(
            f"the gate passed ({decision}): Phase 1 reached the threshold, so Phase 2 is not part of this experiment. "
            "To train it all the same, set gate.force_phase2 to true"
        )
