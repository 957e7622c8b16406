"""Every artefact of a finished experiment, damaged in every way: does ``verify`` name it, and does its reader?

A reader may refuse the file by its name, with the command that makes it again; make it again by itself (``rebuilt``,
which it says); or give the same results all the same (``harmless``). What it must not do is give others (``silent``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damages import DAMAGES, Damage, not_a_number
from experiment import RESULTS, Ended, Experiment, Files, Job, call
from ledger import WRONG, Turn
from workspace import Workspace, rerecord

from latentwire.integrity import read_record, record_of
from latentwire.provenance import SUFFIX

# Of the answers that are stored, so many files stand for all.
STORED = 6
NOTES = "notes"


def not_a_number_and_recorded(path: Path) -> None:
    """As a program with a mistake would have written it: its record says so, too."""
    not_a_number(path)
    rerecord(path)


@dataclass(frozen=True)
class Noted:
    """Notes in a file what a program opens, and what it puts in its place, from when it has been imported on."""

    def watch(self, method: Callable[..., None]) -> Callable[..., None]:
        """``method`` as it is."""
        if not getattr(sys, "noted", False):
            sys.addaudithook(_note)
            sys.noted = True  # type: ignore[attr-defined]
        return method


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    kind, number = {"open": ("opened", 0), "os.rename": ("written", 1)}.get(event, ("", 0))
    if kind and RESULTS in str(arguments[number]):
        notes = os.open(NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(notes, f"{kind} {os.path.relpath(arguments[number])}\n".encode(errors="replace"))
        os.close(notes)


def readers(workspace: Workspace, jobs: list[Job]) -> dict[str, list[Job]]:
    """The calls of programs that open each file and do not write it; all are made once."""
    found: dict[str, list[Job]] = {}
    files, notes = Files(workspace), workspace / NOTES
    for job in jobs:
        notes.unlink(missing_ok=True)
        ended = call(workspace, job, Noted())
        assert ended.code == 0, f"{job.name}: {ended.text}"
        lines = dict.fromkeys(notes.read_text().splitlines())
        for name in (line.removeprefix("opened ") for line in lines if line.startswith("opened ")):
            if f"written {name}" not in lines and (workspace / name) in files.content:
                found.setdefault(name, []).append(job)
    return found


def artefacts(workspace: Workspace, turn: Turn) -> list[Path]:
    """All files of results; of the stored answers some."""
    root = workspace / RESULTS
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    rest = [path for path in files if path.relative_to(root).parts[0] not in ("logs", "benchmarks", "answers")]
    stored = sorted((root / "answers").rglob("*.json"))
    return rest + turn.generator("answers").sample(stored, min(STORED, len(stored)))


def names_of(path: Path, files: Files) -> list[str]:
    """What a program may call a damaged file: of a record one of the files that it is about, or a file of its content."""
    name = os.path.relpath(path)
    record = read_record(path) if path.name.endswith(SUFFIX) else None
    twins = [os.path.relpath(own) for own, content in files.content.items() if content == files.content[path]]
    return [name, *twins] + [os.path.relpath(path.parent / own) for own in (record.outputs if record else ())]


def outcome_of(ended: Ended, names: list[str], changed: list[str]) -> str:
    """How a reader took a damaged file.

    Args:
        ended: the reader.
        names: of the file.
        changed: other results that are not what they were.
    """
    if ended.crashed:
        return ended.crashed
    if ended.code:
        named = any(name in ended.last for name in names)
        whole = named and ("--force" in ended.last or "remove it" in ended.last.lower())
        return "refused" if ": error: " in ended.last and whole else "unclear"
    if changed:
        return "silent"
    return "rebuilt" if any(name in ended.text for name in names) else "harmless"


def verified(workspace: Workspace, names: list[str], *, recorded: bool) -> tuple[str, str]:
    """Whether ``verify`` names a damaged file, and what it said."""
    ended = call(workspace, Job("verify.py", ("--root", RESULTS)))
    if ended.crashed:
        return ended.crashed, ended.text
    seen = ended.code == 1 and any(name in ended.text for name in names)
    return ("named" if seen else "not named" if recorded else "no record"), ended.text


def campaign(experiment: Experiment, turn: Turn) -> None:
    """Damage, ask ``verify``, then one reader after another; in every round each artefact's next reader."""
    workspace = experiment.copy("damage")
    os.chdir(workspace.folder)
    found, files = readers(workspace, experiment.jobs), Files(workspace)
    for round_ in range(max(map(len, found.values()))):
        for path in artefacts(workspace, turn):
            name = str(path.relative_to(workspace.folder))
            own = found.get(name, [])
            first = turn.generator(name).randrange(len(own)) if own else 0
            job = own[(first + round_) % len(own)] if round_ < len(own) else None
            for damage in (*DAMAGES, not_a_number, not_a_number_and_recorded):
                if not turn.going:
                    return
                trial(workspace, files, path, damage, job, turn, verify=round_ == 0)


def trial(
    workspace: Workspace, files: Files, path: Path, damage: Damage, job: Job | None, turn: Turn, *, verify: bool
) -> None:
    """One damage of one file, as ``verify`` and a reader see it."""
    name, what = str(path.relative_to(workspace.folder)), damage.__name__.replace("_", " ")
    record, is_record = record_of(path), path.name.endswith(SUFFIX)
    if damage is not_a_number_and_recorded:
        verify = False  # its record says so
        if is_record or record is None:
            return
    labels = {"verify": f"{name} | {what} | verify"} if verify else {}
    labels |= {"reader": f"{name} | {what} | {job.name}"} if job else {}
    labels = {which: label for which, label in labels.items() if not turn.has(label)}
    before, names = path.read_bytes(), names_of(path, files)
    if labels:
        damage(path)
    if labels and path.is_file() and path.read_bytes() == before:
        labels = {}  # it has no number, or is the only one of its kind
    if "verify" in labels:
        seen, said = verified(workspace, names, recorded=is_record or record is not None)
        turn.add(labels["verify"], f"verify, {what}", seen, said if seen in WRONG else "")
    if "reader" in labels and job:
        ended = call(workspace, job)
        others = [changed for changed in files.changed() if f"{RESULTS}/{changed}" != name]
        seen = outcome_of(ended, names, others)
        if damage is not_a_number_and_recorded and seen == "unclear" and ": error: " in ended.last:
            seen = "refused by its content"  # the file is what its record says; the arm is named
        turn.add(labels["reader"], what, seen, f"{others} {ended.text}" if seen in WRONG else "")
    files.restore()
