"""The model's input embedding table, and other single parameters, read without loading the model."""

from __future__ import annotations

from pathlib import Path

import torch

from latentwire.errors import InputError
from latentwire.lm import look
from latentwire.weights import INDEX, fetch, opened, shards


def read_embeddings(model: str, revision: str | None = None) -> torch.Tensor:
    """The input embedding table ``[V, D]`` in its stored dtype, from the one safetensors shard that holds it.

    It is mapped from the file: rows that nobody reads take no memory, and nothing is copied.

    Args:
        model: local model directory, or name on the hub (that shard alone is downloaded).
        revision: of the hub repository.

    Raises:
        InputError: the model is out of reach, can't serve (:mod:`latentwire.abilities`), has no readable safetensors,
            or keeps its embeddings under an unknown name.
    """
    found = look(model, revision)
    return read_parameter(model, revision, found.table, found.prefix, "input embeddings")


def read_parameter(model: str, revision: str | None, own: str, prefix: str, what: str) -> torch.Tensor:
    """One parameter of a model in its stored dtype, mapped from the safetensors shard that holds it.

    Args:
        model, revision: see :func:`read_embeddings`.
        own: its name in the model's class.
        prefix: of the base model, which checkpoints may leave out or add.
        what: it is, for the error if there is none of that name.

    Raises:
        InputError: as :func:`read_embeddings`.
    """
    names = list(dict.fromkeys((own, own.removeprefix(f"{prefix}."), f"{prefix}.{own}")))
    name, path = _file_of(model, revision, names, what)
    with opened(path) as stored:
        parameter: torch.Tensor = stored.get_tensor(name or _name_in(list(stored.keys()), model, names, what))
    return parameter


def _file_of(model: str, revision: str | None, names: list[str], what: str) -> tuple[str | None, Path]:
    """The file that holds a parameter, and the parameter's name if an index tells it."""
    try:
        index = fetch(model, INDEX, revision)
    except (FileNotFoundError, InputError) as error:
        # Without a network, a cached model of one file can't be told from one whose index is out of reach.
        no_index = error
    else:
        files = shards(index)
        name = _name_in(list(files), model, names, what)
        try:
            return name, fetch(model, files[name], revision)
        except FileNotFoundError as error:
            raise InputError(
                f"{model!r}: its index names {error}, which is not there: the model is incomplete"
            ) from error
    try:
        return None, fetch(model, "model.safetensors", revision)
    except FileNotFoundError as error:
        if isinstance(no_index, InputError):
            raise no_index from error
        raise InputError(f"{model!r} has no safetensors weights; pickled checkpoints are not loaded") from error


def _name_in(stored: list[str], model: str, names: list[str], what: str) -> str:
    for candidate in names:
        if candidate in stored:
            return candidate
    raise InputError(f"{model!r}: no {what} under any of {', '.join(names)}")
