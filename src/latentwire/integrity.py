"""Whether a file is what its producer wrote, which every program asks of every artefact that it reads.

A producer's record (:mod:`~latentwire.provenance`) has the size and the SHA-256 of each file that it wrote,
by-products included, and of what it read. Whatever reads an artefact does so inside :func:`reading`. A file that no
record in its folder names was handed in by the user, and is taken as it is.

Fast to import: the Snakefile asks it too.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from latentwire.commands import experiment_command
from latentwire.errors import InputError
from latentwire.files import hash_of, read_json, sha256_of
from latentwire.provenance import DIGEST, SUFFIX, provenance_path

# Snakemake compares the content of files up to this size, too.
SMALL_BYTES = 1_000_000
# What reading a damaged file raises; libraries' own classes by name, since they are imported late.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, AttributeError, MemoryError, RuntimeError)
_LIBRARIES = {"SafetensorError", "ArrowException", "ParserError"}


class Written(NamedTuple):
    """A file as its producer left it."""

    size: int | None
    sha256: str


@dataclass(frozen=True)
class Record:
    """What a producer wrote down.

    Attributes:
        path: of the record.
        program: that made the files; older records do not say.
        folder: of the files, as the program was told.
        outputs: the files by their names in the record's folder.
        inputs: SHA-256 of what they were made from, by the path that the program was told.
    """

    path: Path
    program: str
    folder: Path
    outputs: dict[str, Written]
    inputs: dict[str, str]


class Fault(NamedTuple):
    """A file that is not what it should be, and the command that makes it again."""

    path: Path
    what: str
    command: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}. It is made again by: {self.command}"


def remake(*paths: str | Path) -> str:
    """The command that makes files of an experiment again."""
    return f"{experiment_command()} --force {shlex.join(map(str, paths))}"


def read_record(path: Path) -> Record:
    """A record.

    Raises:
        InputError: it is not what was written.
    """
    try:
        content: dict[str, Any] = read_json(path)
        if DIGEST in content and content[DIGEST] != hash_of({k: v for k, v in content.items() if k != DIGEST}):
            raise ValueError("its digest is another")
        if "outputs" not in content:  # written before records named every output
            outputs = {path.name.removesuffix(SUFFIX): Written(None, content["artefact"])}
            return Record(path, "an earlier version", path.parent, outputs, content["inputs"])
        outputs = {name: Written(own["bytes"], own["sha256"]) for name, own in content["outputs"].items()}
        if path.name.removesuffix(SUFFIX) not in outputs:
            raise ValueError(f"it is that of {', '.join(sorted(outputs))}")
        return Record(path, content["program"], Path(content["folder"]), outputs, content["inputs"])
    except _UNREADABLE as error:
        said = f"is not the record that was written ({_words(error)})"
        raise InputError(str(Fault(path, said, remake(path)))) from None


def record_of(path: Path) -> Record | None:
    """The record that names a file, in the file's folder; None if there is none.

    Raises:
        InputError: a record that may name it can't be read.
    """
    own = provenance_path(path)
    if os.path.lexists(own):
        return read_record(own)
    records = map(read_record, sorted(path.parent.glob(f"[!.]*{SUFFIX}")))
    return next((record for record in records if path.name in record.outputs), None)


def difference(path: Path, written: Written, *, most: int | None = None) -> str | None:
    """How a file differs from what was written; None if it does not.

    Args:
        path: of the file.
        written: what was.
        most: bytes up to which the content is read, besides the size; None for any number.
    """
    if not path.is_file():
        return "is a folder" if path.is_dir() else "is missing"
    size = path.stat().st_size
    if written.size is not None and size != written.size:
        return "is empty" if not size else f"has {size} bytes instead of {written.size}"
    if (most is None or size <= most) and sha256_of(path) != written.sha256:
        return "has another content"
    return None


# What this program has read: digests of recorded files, how they were found, and which of them a file was made from.
_digests: dict[Path, str] = {}
_found: dict[Path, tuple[int, int, int]] = {}
_made_from: dict[Path, tuple[str, Path]] = {}


def forget() -> None:
    """Begin a program: what an earlier one in this process has read is nothing to it."""
    _digests.clear()
    _found.clear()
    _made_from.clear()


def files_read() -> dict[str, str]:
    """The recorded files that this program has read, with their SHA-256, by their paths."""
    return {os.path.relpath(path): digest for path, digest in _digests.items()}


def check(path: str | Path) -> None:
    """Refuse a file that is not what its producer wrote, or that does not belong to what was read before.

    Raises:
        InputError: names the file, what made it, and the command that makes it again.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder where a file should be: remove it, then {remake(path)}")
    if not path.exists():
        raise InputError(f"{path} does not exist; of an experiment, it is made by: {remake(path)}")
    state = path.stat()
    found_as = (state.st_ino, state.st_size, state.st_mtime_ns)
    if _found.get(_place(path)) == found_as:  # a table is read more than once, and a large one takes seconds
        return
    if (record := record_of(path)) is None:
        return
    written = record.outputs[path.name]
    if (found := difference(path, written)) is not None:
        said = f"{found}: it is not what {record.program} wrote ({record.path.name})"
        raise InputError(str(Fault(path, said, remake(path))))
    _check_versions(path, written.sha256, record)
    _found[_place(path)] = found_as


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, checked as by :func:`check`."""
    check(path)
    return _digests.get(_place(path)) or sha256_of(path)


def _check_versions(path: Path, sha256: str, record: Record) -> None:
    """Refuse two inputs of one program of which one was made from another version of the other."""
    place = _place(path)
    _digests[place] = sha256
    for name, used in record.inputs.items():
        if _digests.get(_place(name), used) != used:
            raise InputError(_older(path, name))
        others, other = _made_from.setdefault(_place(name), (used, path))
        if others != used:
            again = remake(name, other, path)
            raise InputError(f"{other} and {path} were made from two versions of {name}. Make them again by: {again}")
    used, user = _made_from.get(place, (sha256, path))
    if used != sha256:
        raise InputError(_older(user, path))


def _place(path: str | Path) -> Path:
    return Path(os.path.abspath(path))


def _older(path: Path, other: str | Path) -> str:
    return f"{path} was made from another version of {other}. Both are made again by: {remake(other, path)}"


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Read an artefact: it is checked first, and what can't be read ends with its name.

    Raises:
        InputError: as :func:`check`, or what the block raises on a file that it can't read.
    """
    check(path)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        known = {kind.__name__ for kind in type(error).__mro__}
        if not isinstance(error, _UNREADABLE) and not known & _LIBRARIES:
            raise
        again = f". Of an experiment, it is made again by: {remake(path)}"
        raise InputError(f"{path} can't be read: {_words(error)}{again}") from error


def _words(error: Exception) -> str:
    """An error in one line; a missing key's message is the key alone."""
    said = " ".join(str(error).split())
    if isinstance(error, KeyError):
        said = f"there is no {said}"
    return said[:200] or type(error).__name__


# ---- all of an experiment


def faults(root: str | Path, *, most: int | None = None) -> tuple[list[Fault], list[Fault]]:
    """The artefacts under a folder that are not what was written, and those that others do not match.

    Args:
        root: the experiment's folder of results.
        most: as in :func:`difference`.

    Returns:
        What does not match its record; and what was made from another version of a file that does: a leftover of an
        earlier configuration, or put back from before.
    """
    root = Path(root)
    found: list[Fault] = []
    records: list[Record] = []
    for path in sorted(root.rglob(f"[!.]*{SUFFIX}")):
        try:
            records.append(read_record(path))
        except InputError as error:
            said, _, command = str(error).removeprefix(f"{path} ").partition(". It is made again by: ")
            found.append(Fault(path, said, command))
    now: dict[Path, str] = {}
    for record in records:
        below = record.path.parent.relative_to(root).parts
        for name, written in record.outputs.items():
            path = record.path.parent / name
            what = difference(path, written, most=most)
            if what is not None:
                found.append(Fault(path, f"{what}: it is not what {record.program} wrote", remake(path)))
            elif below and record.folder.absolute().parts[-len(below) :] != below:
                found.append(Fault(path, f"was written as {record.folder / name}", remake(path)))
            now[path] = written.sha256
    return found + _without_record(root, records, now), _older_than(root, records, now)


def _inputs(root: Path, record: Record) -> Iterator[tuple[Path, str]]:
    """Where a record's inputs are now, with their SHA-256 then; the experiment may have been moved since."""
    depth = len(record.path.parent.relative_to(root).parts)
    then = record.folder.parents[depth - 1] if 0 < depth <= len(record.folder.parts) else record.folder
    for name, sha256 in record.inputs.items():
        yield root / Path(name).relative_to(then) if Path(name).is_relative_to(then) else Path(name), sha256


def _older_than(root: Path, records: list[Record], now: dict[Path, str]) -> list[Fault]:
    """What was made from another version of a file that is there."""
    found = []
    for record in records:
        for path, sha256 in _inputs(root, record):
            if now.get(path, sha256) != sha256:
                for own in record.outputs:
                    where = record.path.parent / own
                    found.append(Fault(where, f"was made from another version of {path}", remake(path, where)))
    return found


def _without_record(root: Path, records: list[Record], now: dict[Path, str]) -> list[Fault]:
    """What others were made from and no record names, since the record was removed: nothing vouches for it."""
    used = dict.fromkeys(path for record in records for path, _ in _inputs(root, record))
    return [
        Fault(path, "has no record beside it: it may have been replaced", remake(path))
        for path in used
        if path not in now and path.is_relative_to(root) and not path.name.endswith(SUFFIX) and path.is_file()
    ]
