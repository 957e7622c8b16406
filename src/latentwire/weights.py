"""A model's files: where they are, and its safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from latentwire.errors import InputError, said
from latentwire.files import read_json
from latentwire.hub import unavailable

INDEX = "model.safetensors.index.json"
AGAIN = "if it is a Git LFS pointer or half a download, fetch it again"


def fetch(model: str, name: str, revision: str | None) -> Path:
    """The local path of one file of a model directory or hub repository (downloading that file alone).

    Raises:
        FileNotFoundError: the model is there but has no such file.
        InputError: the model is unknown, gated, or out of reach; says what to do.
    """
    if Path(model).is_dir():
        path = Path(model) / name
        if not path.is_file():
            raise FileNotFoundError(path)
        return path
    if model.startswith((".", "/")) or model.count("/") > 1:
        raise InputError(f"model directory {model!r} (model.path) does not exist")
    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except Exception as error:  # its client raises a dozen unrelated classes, those of its HTTP library among them
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise FileNotFoundError(name) from error
        raise unavailable("model", model, revision, error) from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped into memory.

    Raises:
        InputError: it is none, or is cut short.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            yield stored
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({said(error)}): {AGAIN}") from error


def shards(index: Path) -> dict[str, str]:
    """Of each parameter the file that holds it, by a model's index.

    Raises:
        InputError: the index can't be read, or has none.
    """
    content = read_json(index)
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise InputError(f"{index} can't be read: it has no 'weight_map' of parameters to files: {AGAIN}")
    return found


def require_whole(model: str, revision: str | None) -> None:
    """Refuse a model of which a safetensors file is cut short or none; of each file the beginning is read.

    Args:
        model, revision: see :func:`fetch`; of a hub repository all of the weights are there already.

    Raises:
        InputError: names the file.
    """
    try:
        names = sorted(set(shards(fetch(model, INDEX, revision)).values()))
    except FileNotFoundError:
        names = ["model.safetensors"]
    for name in names:
        with opened(fetch(model, name, revision)):
            pass
