"""How a program of this environment is typed in a shell that has not activated it.

Standard library only: the Snakefile imports this.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

# How the experiment under way was started, which the Snakefile tells its programs.
COMMAND_VARIABLE = "LATENTWIRE_COMMAND"


def typed(program: str) -> str:
    """``program`` beside the interpreter that runs this, as a word of a shell command.

    Relative if it is below the working directory (``.venv/bin/snakemake``), so that the words are the same in every
    checkout. Where nothing of that name is beside the interpreter, the name itself.
    """
    beside, here = Path(sys.executable).parent / program, Path.cwd()
    if not beside.is_file():
        return program
    for place in (beside, beside.parent.resolve() / program):
        if place.is_relative_to(here):
            return shlex.quote(str(place.relative_to(here)))
    return shlex.quote(str(beside))


def with_overrides(command: str, overrides: dict[str, Any]) -> str:
    """A Snakemake command with its ``--config``."""
    given = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]
    return f"{command} --config {shlex.join(given)}" if given else command


def experiment_command() -> str:
    """How the experiment under way was started; of a program that was started by hand, that of ``config.yaml``."""
    by_hand = f"{typed('snakemake')} --profile profiles/local --configfile config.yaml"
    return os.environ.get(COMMAND_VARIABLE, by_hand)
