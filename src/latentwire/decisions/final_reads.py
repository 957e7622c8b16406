"""The record of every configuration under which the split ``final`` was read.

``final`` is meant to be read once, with a frozen configuration. A second configuration that sees it can have been
chosen with it in mind, so its verdict is marked as not confirmatory. The record is outside every stage's outputs:
a rerun adds to it and nothing removes from it.
"""

from __future__ import annotations

from pathlib import Path

from latentwire.artefacts import read_json
from latentwire.commands import experiment_command
from latentwire.errors import InputError
from latentwire.files import write_json


def record_read(folder: str | Path, configuration: str) -> None:
    """Record that ``final`` is read under a configuration, by its hash; the same one again changes nothing.

    The jobs of one evaluation do this at the same time: the others of this configuration are not earlier ones.
    """
    path = Path(folder) / f"{configuration}.json"
    if not path.exists():
        earlier = [other for other in recorded_configurations(folder) if other != configuration]
        write_json(path, {"configuration": configuration, "earlier": earlier})


def recorded_configurations(folder: str | Path) -> list[str]:
    """The hashes of all recorded configurations, sorted."""
    # A record that is being written has a name that begins with a dot.
    return sorted(path.stem for path in Path(folder).glob("[!.]*.json"))


def is_confirmatory(folder: str | Path, configuration: str) -> bool:
    """Whether ``configuration`` was the first under which ``final`` was read."""
    path = Path(folder) / f"{configuration}.json"
    if not path.exists():
        return True
    try:
        found = read_json(path)
        own, earlier = found["configuration"], found["earlier"]
        if own != configuration:
            raise ValueError(f"it is that of configuration {own}")
    except (ValueError, TypeError, LookupError):
        raise InputError(
            f"{path} is not the record that was written. Remove it, then run the experiment again: a record is made "
            "anew, in which all other configurations that read 'final' are earlier ones. " + experiment_command()
        ) from None
    return not earlier
