"""Atomic writes: a reader of a path sees the old content or the new content, never a part."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentwire.errors import InputError, UnwritableError

# No write takes so long: an older temporary file was left by a writer that was killed.
ABANDONED_SECONDS = 86400.0


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends without an error.

    Args:
        path: the file to write; its folder is made if it is missing.

    Yields:
        The temporary path, in the same folder and with the same suffix.

    Raises:
        UnwritableError: a full disk, a folder in its place, no permission.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        # Whose it is, so that the next writer can tell whether it still lives.
        prefix = f".{path.name}.{socket.gethostname()}-{os.getpid()}."
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except Exception as error:
        # The class of safetensors by its name: this module is imported by what never writes a tensor.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        way_out = "; remove it, then run the same command again" if path.is_dir() else ""
        raise UnwritableError(
            f"{path} can't be written: {getattr(error, 'strerror', None) or error}{way_out}"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of this path's writers that were killed."""
    for other in path.parent.glob(f".{_escaped(path.name)}.*"):
        named = re.fullmatch(r"(.*)-(\d+)\.[^.]+", other.name.removeprefix(f".{path.name}.").removesuffix(path.suffix))
        try:
            dead = named is not None and named[1] == socket.gethostname() and not _lives(int(named[2]))
            if dead or time.time() > other.stat().st_mtime + ABANDONED_SECONDS:
                other.unlink(missing_ok=True)
        except OSError:  # another writer was faster
            continue


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON value in ``path``.

    Raises:
        InputError: it is none.
    """
    with _parsing(path):
        return parse_json(Path(path).read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """A JSON value of the project's own, which never holds NaN or an infinity.

    Raises:
        ValueError: it is none, or holds one.
    """
    return json.loads(text, parse_constant=_refuse)


def parse_jsonl(text: str) -> list[dict[str, Any]]:
    """JSON objects, one per line; errors as of :func:`parse_json`."""
    return [parse_json(line) for line in text.split("\n") if line]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


@contextmanager
def _parsing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, or of what is nested without end
        raise InputError(f"{path} can't be read: {error}") from error


def write_jsonl(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows))


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read the JSON objects in ``path``, one per line."""
    with _parsing(path):
        return parse_jsonl(Path(path).read_text(encoding="utf-8"))


def bytes_by_dtype(path: str | Path) -> dict[str, int]:
    """The bytes of the tensors in a safetensors file by their dtype (``bf16``, ``f32``, ``u8``), from its header."""
    with Path(path).open("rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    found: dict[str, int] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found[entry["dtype"].lower()] = found.get(entry["dtype"].lower(), 0) + end - start
    return found


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
