"""How a program of this environment is typed in a shell that has not activated it.

Standard library only: the Snakefile imports this.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def typed(program: str) -> str:
    """``program`` beside the interpreter that runs this, as a word of a shell command.

    Relative where it is below the working directory (``.venv/bin/snakemake``), so that the words are the same in every
    checkout. Where nothing of that name is beside the interpreter, the name itself.
    """
    beside, here = Path(sys.executable).parent / program, Path.cwd()
    if not beside.is_file():
        return program
    for place in (beside, beside.parent.resolve() / program):
        if place.is_relative_to(here):
            return shlex.quote(str(place.relative_to(here)))
    return shlex.quote(str(beside))
